/**
 * Takes newline-delimited text apart, however its chunks are cut. Empty lines are left out.
 *
 * @param charsMax - Of one line, in UTF-16 units. Memory is BOUNDED by it and one chunk.
 * @throws {RangeError} if a line is longer
 */
export async function* readLines(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  charsMax: number,
): AsyncGenerator<string, void> {
  const decoder = new TextDecoder();
  let pending = '';
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (pending + decoder.decode(value, { stream: !done })).split('\n');
    pending = done ? '' : (lines.pop() ?? '');
    requireLength(pending, charsMax);
    for (const line of lines) {
      requireLength(line, charsMax);
      if (line !== '') yield line;
    }
    if (done) return;
  }
}

function requireLength(line: string, charsMax: number): void {
  if (line.length <= charsMax) return;
  throw new RangeError(`a line is too long: expected ${charsMax} characters at most`);
}
