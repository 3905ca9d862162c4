import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  ProofClient,
  ProofError,
  type ProofQuestion,
} from '../../../../src/cli/prove/proof-client.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';
import { makeSocketDirectory, removeDirectory } from '../../../support/work-dir.ts';

expectNoLeaks();

const never = new AbortController().signal;
const question: ProofQuestion = {
  registry: 'registry.test:5000',
  repository: 'team/app',
  kind: 'manifests',
  reference: 'v1',
  platform: { os: 'linux', architecture: 'arm', variant: 'v7' },
};

let directory: string;
let server: Server;
let client: ProofClient;
let answer: (request: IncomingMessage, response: ServerResponse) => void;
let asked: IncomingMessage[];

beforeEach(async () => {
  directory = await makeSocketDirectory();
  asked = [];
  server = createServer((request, response) => {
    asked.push(request);
    answer(request, response);
  });
  const socketPath = join(directory, 'registry.sock');
  server.listen(socketPath);
  await once(server, 'listening');
  client = new ProofClient({ socketPath, stepTimeoutMs: 200, maxSockets: 2 });
});

afterEach(async () => {
  client.close();
  server.closeAllConnections();
  if (server.listening) {
    const closed = once(server, 'close');
    server.close();
    await closed;
  }
  await removeDirectory(directory);
});

async function read(chunks: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return Buffer.concat(parts).toString();
}

describe('ProofClient', () => {
  test('ProofClient asks as containerd does, and for which platform', async () => {
    answer = (_, response) => response.end('a manifest');
    const { chunks } = await client.get(question, never);
    expect(await read(chunks)).toBe('a manifest');
    expect(asked[0]?.url).toBe('/v2/team/app/manifests/v1?ns=registry.test%3A5000');
    expect(asked[0]?.headers).toMatchObject({
      accept: expect.stringContaining('application/vnd.oci.image.index.v1+json') as string,
      'salvor-platform': 'linux/arm',
    });
  });

  test('ProofClient tells why there is no answer, also to HEAD', async () => {
    const errors = [{ code: 'UNAVAILABLE', message: 'Cannot fetch it: nobody has it' }];
    answer = ({ method }, response) => {
      response.writeHead(503, { 'content-type': 'application/json' });
      response.end(method === 'HEAD' ? undefined : JSON.stringify({ errors }));
    };
    const refused = { name: 'ProofError', message: 'Cannot fetch it: nobody has it' };
    await expect(client.get(question, never)).rejects.toMatchObject(refused);
    await expect(client.head(question, never)).rejects.toMatchObject(refused);
    answer = (_, response) => response.writeHead(404).end('no JSON');
    await expect(client.get(question, never)).rejects.toMatchObject({ message: 'answered 404' });
  });

  test('ProofClient gives an answer that does not begin up', async () => {
    answer = () => undefined;
    await expect(client.get(question, never)).rejects.toThrow('gave no answer within 200 ms');
  });

  test('ProofClient gives a body up that stands still, or breaks off', async () => {
    answer = (_, response) => {
      response.writeHead(200, { 'content-length': 10 });
      response.write('half');
    };
    const still = await client.get(question, never);
    await expect(read(still.chunks)).rejects.toThrow('sent nothing for 200 ms');
    still.cancel();
    answer = (_, response) => {
      response.writeHead(200, { 'content-length': 10 });
      response.write('half', () => response.destroy());
    };
    const broken = await client.get(question, never);
    await expect(read(broken.chunks)).rejects.toBeInstanceOf(ProofError);
  });

  test('ProofClient ends at once when it is told to', async () => {
    const stop = new AbortController();
    const reason = new Error('stopped');
    answer = (_, response) => {
      response.writeHead(200, { 'content-length': 10 });
      response.write('half');
    };
    const { chunks } = await client.get(question, stop.signal);
    stop.abort(reason);
    await expect(read(chunks)).rejects.toBe(reason);
    await expect(client.get(question, stop.signal)).rejects.toBe(reason);
  });

  test('ProofClient says so when there is no registry to ask', async () => {
    const nobody = new ProofClient({
      socketPath: join(directory, 'nobody.sock'),
      stepTimeoutMs: 200,
      maxSockets: 1,
    });
    const asking = nobody.get(question, never);
    await expect(asking).rejects.toThrow(/^Cannot ask the registry at .*nobody\.sock: /);
    await expect(asking).rejects.not.toBeInstanceOf(ProofError);
    nobody.close();
  });
});
