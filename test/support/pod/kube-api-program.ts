/**
 * The API server of a scene as a program of its own, so that it can be on a machine of its own and
 * die. Usage: kube-api-program.ts SETTINGS (a JSON file).
 */
import { readFileSync } from 'node:fs';
import { FakeKubeApi } from '../fake-kube-api.ts';

interface Settings {
  readonly address: string;
  readonly port: number;
  readonly token: string;
  readonly tls: { readonly cert: string; readonly key: string };
  readonly endpointSlices: readonly Parameters<FakeKubeApi['put']>[1][];
}

const settings = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as Settings;
const api = new FakeKubeApi(settings.tls);
api.token = settings.token;
for (const slice of settings.endpointSlices) api.put('endpointslices', slice);
await api.listen(settings);
console.log('ready');
