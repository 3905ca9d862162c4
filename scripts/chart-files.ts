import { format } from 'prettier';
import { stringify } from 'yaml';
import { chartValuesSchema } from './chart-values-schema.ts';
import { reloadableKeys } from './config-json-schema.ts';

/** A file that follows from schemas, and what it must hold. */
export interface GeneratedFile {
  readonly file: URL;
  readonly content: string;
}

const chart = new URL('../charts/salvor/', import.meta.url);

/** Every generated file of the chart. */
export async function renderChartFiles(): Promise<readonly GeneratedFile[]> {
  const schema = JSON.stringify(chartValuesSchema());
  const keys = stringify({ keys: reloadableKeys() }, { indentSeq: true });
  const note =
    '# Generated from src/config/schema.ts by "npm run docs": what needs no restart of a pod.\n';
  return [
    {
      file: new URL('values.schema.json', chart),
      content: await format(schema, { parser: 'json', printWidth: 100 }),
    },
    { file: new URL('files/reloadable.yaml', chart), content: `${note}${keys}` },
  ];
}
