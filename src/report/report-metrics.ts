import { Gauge, type Registry } from 'prom-client';
import { VERDICTS, type Report } from './report.ts';

/** What the last report said. Labels are bounded: never an image, a digest or a node. */
export interface ReportMetrics {
  record(report: Report): void;
}

/** Registers the metrics of reports. Those of the last report appear with it. */
export function createReportMetrics(
  register: Registry,
  now: () => number = Date.now,
): ReportMetrics {
  const registers = [register];
  let last: Report | undefined;
  const images = new Gauge({
    name: 'salvor_report_images',
    help: 'Images in the last report, each platform once, by verdict.',
    labelNames: ['verdict'],
    registers,
  });
  const members = new Gauge({
    name: 'salvor_report_members',
    help: 'Members of the cluster in the last report, by whether they answered.',
    labelNames: ['state'],
    registers,
  });
  const gauge = (name: string, help: string): Gauge =>
    new Gauge({ name, help, labelNames: [], registers });
  const share = gauge(
    'salvor_report_servable_ratio',
    'Share of images that nodes could serve without their registries, by the last report.',
  );
  const complete = gauge(
    'salvor_report_complete',
    'Whether every member answered for the last report: 1, else 0.',
  );
  const time = gauge(
    'salvor_report_timestamp_seconds',
    'When the last report was made, in seconds since the epoch.',
  );
  const duration = gauge('salvor_report_duration_seconds', 'How long the last report took.');
  new Gauge({
    name: 'salvor_report_age_seconds',
    help: 'How old the last report is; absent before the first.',
    labelNames: [],
    registers,
    collect() {
      if (last === undefined) this.remove();
      else this.set(Math.max(0, (now() - Date.parse(last.takenAt)) / 1000));
    },
  });
  for (const one of [share, complete, time, duration]) one.remove();
  return {
    record: (report) => {
      last = report;
      for (const verdict of VERDICTS) {
        images.set({ verdict }, report.images.filter((image) => image.verdict === verdict).length);
      }
      for (const state of ['answered', 'too-old', 'no-answer']) {
        members.set({ state }, report.members.filter((one) => one.state === state).length);
      }
      share.set(report.summary.servableShare);
      complete.set(report.isComplete ? 1 : 0);
      time.set(Date.parse(report.takenAt) / 1000);
      duration.set(report.tookMs / 1000);
    },
  };
}
