import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { HistogramCounts } from '../core/histogram.ts';

/** One metric's current samples; read when somebody scrapes. */
export interface MetricSource {
  /** Prometheus name: `weft_…`, base units, `_total` for counters. */
  readonly name: string;
  readonly kind: 'counter' | 'gauge';
  readonly help: string;
  readonly labels: readonly string[];
  /** Values by their labels. Labels never name connections or containers: series stay few. */
  readonly read: () => Promise<readonly Sample[]> | readonly Sample[];
}

/** A histogram without labels; read when somebody scrapes. */
export interface HistogramSource {
  /** As for {@link MetricSource}. */
  readonly name: string;
  readonly help: string;
  /** Undefined while there is nothing that counts. */
  readonly read: () => HistogramCounts | undefined;
}

/** One value of a metric and its labels. */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Gauges of prom-client that break Prometheus' naming rules (`promtool check metrics`). */
const MISNAMED_DEFAULTS = [
  'nodejs_active_handles_total',
  'nodejs_active_requests_total',
  'nodejs_active_resources_total',
];

/** The agent's metrics in Prometheus' text format; nothing is computed until somebody asks. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #histograms: HistogramSource[] = [];

  constructor() {
    collectDefaultMetrics({ register: this.#registry });
    for (const name of MISNAMED_DEFAULTS) this.#registry.removeSingleMetric(name);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Adds a metric. */
  add(source: MetricSource): void {
    const configuration = {
      name: source.name,
      help: source.help,
      labelNames: [...source.labels],
      registers: [this.#registry],
    };
    if (source.kind === 'gauge') {
      new Gauge({
        ...configuration,
        async collect() {
          this.reset();
          for (const { labels, value } of await source.read()) this.set(labels, value);
        },
      });
      return;
    }
    new Counter({
      ...configuration,
      async collect() {
        this.reset(); // the source keeps the total
        for (const { labels, value } of await source.read()) this.inc(labels, value);
      },
    });
  }

  /** Adds a histogram. */
  addHistogram(source: HistogramSource): void {
    this.#histograms.push(source);
  }

  /** All metrics as text. */
  async text(): Promise<string> {
    return [await this.#registry.metrics(), ...this.#histograms.map(histogramText)].join('\n');
  }
}

/**
 * A histogram in the text format: each bucket with all below it, sum and count. prom-client's own histograms
 * count values as they come; here the source has counted them.
 */
function histogramText({ name, help, read }: HistogramSource): string {
  const lines = [`# HELP ${name} ${help}`, `# TYPE ${name} histogram`];
  const source = read();
  if (source === undefined) return `${lines.join('\n')}\n`;
  const { bounds, counts, count, sum } = source;
  let below = 0;
  for (const [index, bound] of bounds.entries()) {
    below += counts[index] ?? 0;
    lines.push(`${name}_bucket{le="${bound}"} ${below}`);
  }
  lines.push(`${name}_bucket{le="+Inf"} ${count}`, `${name}_sum ${sum}`, `${name}_count ${count}`);
  return `${lines.join('\n')}\n`;
}
