import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';

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

  /** All metrics as text. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }
}
