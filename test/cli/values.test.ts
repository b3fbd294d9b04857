import fc from 'fast-check';
import { test } from 'tap';
import { humanDuration, parseDurationNs } from '../../src/cli/durations.ts';
import { publishedPorts } from '../../src/cli/published-ports.ts';
import { formatPairs, formatTable } from '../../src/cli/table.ts';
import { parseHostAndPort } from '../../src/cli/values.ts';
import { splitWords } from '../../src/cli/words.ts';

test('parseDurationNs() reads what Go reads, exactly', (t) => {
  for (const [text, ns] of [
    ['0', 0],
    ['0s', 0],
    ['1ns', 1],
    ['1µs', 1_000],
    ['500ms', 500_000_000],
    ['10s', 10_000_000_000],
    ['1m30s', 90_000_000_000],
    ['1.5h', 5_400_000_000_000],
    ['.5s', 500_000_000],
    ['1.s', 1_000_000_000],
    ['', undefined],
    ['10', undefined],
    ['s', undefined],
    ['-1s', undefined],
    ['1 s', undefined],
    ['1d', undefined],
    ['1s2', undefined],
    ['3000h', undefined],
  ] as const) {
    t.equal(parseDurationNs(text), ns, JSON.stringify(text));
  }
  t.end();
});

test('humanDuration() rounds as Docker does', (t) => {
  const minute = 60_000;
  const hour = 60 * minute;
  const day = 24 * hour;
  for (const [ms, text] of [
    [0, 'less than a second'],
    [1_999, '1 second'],
    [59_999, '59 seconds'],
    [119_999, 'about a minute'],
    [59 * minute, '59 minutes'],
    [hour, 'about an hour'],
    [1.49 * hour, 'about an hour'],
    [1.5 * hour, '2 hours'],
    [47 * hour, '47 hours'],
    [2 * day, '2 days'],
    [14 * day, '2 weeks'],
    [60 * day, '2 months'],
    [729 * day, '24 months'],
    [730 * day, '2 years'],
  ] as const) {
    t.equal(humanDuration(ms), text);
  }
  t.end();
});

test('publishedPorts() expands ranges', (t) => {
  const numbers = (text: string) =>
    publishedPorts(text).map((port) => [port.PublishedPort, port.TargetPort, port.Protocol]);
  t.same(numbers('80'), [[0, 80, 'tcp']]);
  t.same(numbers('8080-8081:80-81/udp'), [
    [8080, 80, 'udp'],
    [8081, 81, 'udp'],
  ]);
  t.same(numbers('target=80'), [[0, 80, 'tcp']]);
  t.end();
});

test('parseHostAndPort() wants both, and brackets around IPv6', (t) => {
  for (const [text, expected] of [
    ['a:1', { host: 'a', port: 1 }],
    ['[::1]:65535', { host: '::1', port: 65_535 }],
    ['a', undefined],
    ['a:', undefined],
    [':1', undefined],
    ['::1:1', undefined],
    ['a:0', undefined],
    ['a:65536', undefined],
    ['a b:1', undefined],
  ] as const) {
    t.same(parseHostAndPort(text), expected, text);
  }
  t.end();
});

test('splitWords() undoes a shell’s quotes', (t) => {
  for (const [text, words] of [
    ['', []],
    ['  a   b ', ['a', 'b']],
    [`"" ''`, ['', '']],
    [`a"b c"'d e'f\\ g`, ['ab cd ef g']],
    [`"a \\"b\\" \\n" 'c\\'`, ['a "b" \\n', 'c\\']],
  ] as const) {
    t.same(splitWords(text), words, text);
  }
  for (const text of [`"a`, `'a`, 'a\\']) t.throws(() => splitWords(text), /quote/);
  const quote = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`;
  fc.assert(
    fc.property(fc.array(fc.string()), (words) => {
      t.same(splitWords(words.map(quote).join(' ')), words);
    }),
    { numRuns: 100 },
  );
  t.end();
});

test('tables and pairs line up by characters', (t) => {
  t.equal(
    formatTable(
      ['ID', 'NAME'],
      [
        ['a-very-long-id', 'x'],
        ['é🙂', ''],
      ],
    ),
    'ID               NAME\na-very-long-id   x\né🙂\n',
  );
  t.equal(formatTable(['ID', 'NAME'], []), 'ID        NAME\n');
  t.equal(
    formatPairs([
      ['A', '1'],
      ['Long', '2'],
    ]),
    ' A:    1\n Long: 2\n',
  );
  t.end();
});
