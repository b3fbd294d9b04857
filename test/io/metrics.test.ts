import { test } from 'tap';
import { Histogram } from '../../src/core/histogram.ts';
import { Metrics } from '../../src/io/metrics.ts';

/** The lines of one metric. */
async function linesOf(metrics: Metrics, name: string): Promise<string[]> {
  return (await metrics.text()).split('\n').filter((line) => line.includes(name));
}

test('a histogram is shown as Prometheus counts: each bucket with all below it', async (t) => {
  const metrics = new Metrics();
  let source: Histogram | undefined;
  metrics.addHistogram({ name: 'weft_test_seconds', help: 'Of a test.', read: () => source });
  const head = ['# HELP weft_test_seconds Of a test.', '# TYPE weft_test_seconds histogram'];
  t.same(await linesOf(metrics, 'weft_test'), head, 'nothing counts yet');
  source = new Histogram([0.5, 1, 2.5]);
  for (const value of [0.25, 0.5, 0.75, 4, 2, 2.5]) source.observe(value);
  const expected = [
    ...head,
    'weft_test_seconds_bucket{le="0.5"} 2',
    'weft_test_seconds_bucket{le="1"} 3',
    'weft_test_seconds_bucket{le="2.5"} 5',
    'weft_test_seconds_bucket{le="+Inf"} 6',
    'weft_test_seconds_sum 10',
    'weft_test_seconds_count 6',
  ];
  t.same(await linesOf(metrics, 'weft_test'), expected);
  t.same(await linesOf(metrics, 'weft_test'), expected, 'to be read does not change it');
});
