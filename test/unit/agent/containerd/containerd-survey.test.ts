import { create } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { warningsOf } from '../../../../src/agent/containerd/containerd-survey.ts';
import {
  PluginSchema,
  type Plugin,
} from '../../../../src/rpc/gen/containerd/services/introspection/v1/introspection_pb.ts';

const plugin = (type: string, id: string, message?: string): Plugin =>
  create(PluginSchema, {
    type: `io.containerd.${type}`,
    id,
    ...(message === undefined ? {} : { initErr: { code: 2, message } }),
  });
const cri = plugin('grpc.v1', 'cri');
const usual = [cri, plugin('content.v1', 'content'), plugin('snapshotter.v1', 'overlayfs')];

function codes(plugins: readonly Plugin[] | undefined, more: object = {}): string[] {
  const facts = { namespace: 'k8s.io', namespaces: [], hasImages: true, plugins, ...more };
  return warningsOf(facts).map(({ code }) => code);
}

describe('warningsOf', () => {
  test('warningsOf finds nothing odd about a usual node, skipped snapshotters included', () => {
    expect(codes([...usual, plugin('snapshotter.v1', 'zfs', 'skip plugin')])).toEqual([]);
  });

  test.each(['stargz', 'nydus', 'soci', 'overlaybd'])('warningsOf recognises %s', (id) => {
    expect(codes([...usual, plugin('snapshotter.v1', id)])).toEqual(['lazy_snapshotter']);
    expect(codes([...usual, plugin('snapshotter.v1', id, 'cannot dial')])).toEqual([]);
  });

  test('warningsOf names plugins that are off or do not run', () => {
    expect(codes(usual.slice(1))).toEqual(['cri_plugin']);
    expect(codes(usual.slice(1), { namespace: 'other' })).toEqual([]);
    const broken = [plugin('grpc.v1', 'cri', 'no CNI'), plugin('content.v1', 'content', 'no disk')];
    expect(codes(broken)).toEqual(['content_plugin', 'cri_plugin']);
    expect(codes(undefined)).toEqual(['plugins_unknown']);
  });

  test('warningsOf tells a Docker engine by its namespace, where there is nothing in this one', () => {
    expect(codes(usual, { namespaces: ['moby'], hasImages: false })).toEqual(['docker_store']);
    expect(codes(usual, { namespaces: ['moby'] })).toEqual([]);
    expect(codes(usual, { hasImages: false })).toEqual([]);
  });
});
