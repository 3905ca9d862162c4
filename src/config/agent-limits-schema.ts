import { bytes, count, milliseconds, section } from './setting.ts';

const kib = 1024;
const mib = 1024 * kib;

/** Settings of how much an agent does at a time, and for whom. */
export const agentLimitsSection = section('Bounds of the agent.', {
  maxReaders: count(64, 'Blobs read for other nodes at a time; more are told "busy".', {
    maximum: 4096,
  }),
  readerStallMs: milliseconds(
    90_000,
    'How long another node may take nothing of what it reads before its place goes to others.',
    { minimum: 1000 },
  ),
  maxMembersAsked: count(256, 'Members asked at a time for one lookup.', { maximum: 10_000 }),
  memberTimeoutMs: milliseconds(800, 'For one member to answer a lookup.'),
  observations: count(50_000, 'Tags whose last confirmed digest is remembered.', {
    maximum: 10_000_000,
  }),
  chunkBytes: bytes(256 * kib, 'Bytes of a blob that are sent at a time.', {
    minimum: 16 * kib,
    maximum: 4 * mib,
  }),
  windowBytes: bytes(512 * kib, 'HTTP/2 window of a connection to or from another node.', {
    minimum: 64 * kib,
    maximum: 64 * mib,
  }),
  maxConnections: count(
    1024,
    'Connections of other nodes: one for the calls of each process, one for each blob of more than ' +
      '1 MiB that it reads. When there is one too many, the host with most has one refused.',
    { minimum: 16, maximum: 65_536 },
  ),
  maxHandshakes: count(
    512,
    'Connections that have not shown a certificate yet; they have 5 s. When there is one too many, ' +
      'the oldest of the host with most is ended. About 50 KiB of memory each.',
    { minimum: 16, maximum: 65_536 },
  ),
});
