import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestScope } from './test-scope.ts';

const headerBytes = 12;
const typeA = 1;
const serverFailure = 2;
const ttlSeconds = 1;

/** What it does with questions. */
export type NameServerMode = 'silent' | 'fail' | 'answer';

/**
 * A DNS server (RFC 1035) on a loopback address of its own, to which every name is 127.0.0.1, or
 * which says nothing, or fails. Programs under its launcher ask nobody else.
 */
export class NameServer {
  mode: NameServerMode = 'silent';
  /** Questions that came in. */
  questionCount = 0;
  /** Put in front of a command: it then takes its names from here alone. Needs root, and Linux. */
  readonly launcher: readonly string[];

  private constructor(socket: Socket, configPath: string) {
    this.launcher = [
      ...['unshare', '--mount', '--', 'sh', '-c'],
      ...['mount --bind "$0" /etc/resolv.conf && exec "$@"', configPath],
    ];
    socket.on('message', (question, { address, port }) => {
      this.questionCount += 1;
      const answer = this.#answer(question);
      if (answer !== undefined) socket.send(answer, port, address);
    });
  }

  /**
   * Starts one that ends with the scope. It is silent at first.
   *
   * @param address a loopback address that no other name server of this machine has
   */
  static async start(scope: TestScope, address: string): Promise<NameServer> {
    const socket = createSocket('udp4');
    scope.defer(() => void socket.close());
    socket.bind({ address, port: 53, exclusive: true });
    await once(socket, 'listening');
    const configPath = join(scope.directory, 'resolv.conf');
    await writeFile(configPath, `nameserver ${address}\n`);
    return new NameServer(socket, configPath);
  }

  #answer(question: Buffer): Buffer | undefined {
    if (this.mode === 'silent' || question.length < headerBytes) return undefined;
    const nameEnd = question.indexOf(0, headerBytes);
    const end = nameEnd + 5;
    const hasAnswer = this.mode === 'answer' && question.readUInt16BE(nameEnd + 1) === typeA;
    const head = Buffer.from(question.subarray(0, end));
    // A response, recursion available; the code says how it went.
    head.writeUInt16BE(0x8180 | (this.mode === 'fail' ? serverFailure : 0), 2);
    head.writeUInt16BE(hasAnswer ? 1 : 0, 6);
    head.writeUInt16BE(0, 8);
    head.writeUInt16BE(0, 10);
    if (!hasAnswer) return head;
    const record = Buffer.alloc(16);
    // The name is the one in the question, at byte 12.
    record.writeUInt16BE(0xc00c, 0);
    record.writeUInt16BE(typeA, 2);
    record.writeUInt16BE(1, 4);
    record.writeUInt32BE(ttlSeconds, 6);
    record.writeUInt16BE(4, 10);
    record.set([127, 0, 0, 1], 12);
    return Buffer.concat([head, record]);
  }
}
