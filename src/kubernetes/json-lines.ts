/**
 * Parses a stream of JSON values, one a line.
 *
 * @throws when a line is longer than allowed or no JSON, or the stream ends within one
 */
export async function* readJsonLines(
  stream: AsyncIterable<Buffer>,
  maxLineBytes: number,
): AsyncGenerator {
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  const keep = (part: Buffer): void => {
    pendingBytes += part.length;
    if (pendingBytes > maxLineBytes) throw new Error(`a line of more than ${maxLineBytes} bytes`);
    pending.push(part);
  };
  for await (const chunk of stream) {
    let from = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      keep(chunk.subarray(from, end));
      from = end + 1;
      const line = Buffer.concat(pending).toString();
      pending = [];
      pendingBytes = 0;
      if (line.trim() !== '') yield JSON.parse(line);
    }
    if (from < chunk.length) keep(chunk.subarray(from));
  }
  if (Buffer.concat(pending).toString().trim() !== '') throw new Error('the last line has no end');
}
