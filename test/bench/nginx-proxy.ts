import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort } from '../support/ports.ts';
import { Program } from '../support/process.ts';
import type { TestScope } from '../support/test-scope.ts';
import { toolEnv, toolPath } from '../support/tools.ts';

/** An nginx that passes everything on to one place. */
export interface NginxProxy {
  readonly port: number;
  readonly program: Program;
}

/**
 * Starts nginx with `proxy_pass` and its own defaults: one worker, buffering on.
 *
 * @param target such as http://127.0.0.1:5000
 */
export async function startNginxProxy(scope: TestScope, target: string): Promise<NginxProxy> {
  const port = await freePort();
  const directory = join(scope.directory, 'nginx');
  await mkdir(directory, { recursive: true });
  const configPath = join(directory, 'nginx.conf');
  await writeFile(configPath, renderConfig({ directory, port, target }));
  const program = await Program.start(scope, {
    name: 'nginx',
    command: toolPath('nginx'),
    arguments: ['-e', 'stderr', '-p', directory, '-c', configPath],
    env: toolEnv('nginx'),
  });
  await program.waitForPort(port);
  return { port, program };
}

function renderConfig(options: { directory: string; port: number; target: string }): string {
  const { directory, port, target } = options;
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path ${directory}/${name};`,
  );
  const user = process.getuid?.() === 0 ? 'user root;' : '';
  return `daemon off;
${user}
pid ${directory}/nginx.pid;
events {}
http {
  access_log off;
  ${temporary.join('\n  ')}
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass ${target};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }
  }
}
`;
}
