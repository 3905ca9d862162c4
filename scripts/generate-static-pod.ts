/** Writes packaging/static-pod/salvor.yaml from the chart. Needs `npm run test:helm`. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { render } from '../test/chart/render.ts';
import { staticPod } from './static-pod.ts';

const directory = resolve(import.meta.dirname, '..', 'packaging', 'static-pod');
mkdirSync(directory, { recursive: true });
writeFileSync(join(directory, 'salvor.yaml'), staticPod(render('minimal')));
