import { InvalidArgumentError } from 'commander';
import type { PortConfig } from './api-types.ts';
import { PORT_MAX } from './values.ts';

const SHORT_FORM = /^(?:(\d+)(?:-(\d+))?:)?(\d+)(?:-(\d+))?(?:\/(\w+))?$/;
const EXPECTED =
  'expected [published:]target[/tcp|udp] such as 8080:80, ' +
  'or target=80,published=8080,protocol=tcp,mode=ingress';

/**
 * Reads one `--publish`, in either of Docker's forms. A target alone gets a port from the cluster.
 *
 * @returns one entry per port of a range
 * @throws {InvalidArgumentError} saying what is expected
 */
export function publishedPorts(text: string): PortConfig[] {
  return text.includes('target=') || text.includes(',') ? [longForm(text)] : shortForm(text);
}

function shortForm(text: string): PortConfig[] {
  const match = SHORT_FORM.exec(text);
  if (match === null) {
    throw new InvalidArgumentError(
      /^[\d.]+:\d+:\d+|^\[/.test(text)
        ? 'a host address is not supported here: expected [published:]target[/tcp|udp]'
        : EXPECTED,
    );
  }
  const [, publishedFrom, publishedTo, targetFrom, targetTo, protocolText] = match;
  const protocol = toProtocol(protocolText ?? 'tcp');
  const targets = range(targetFrom, targetTo);
  const published = publishedFrom === undefined ? undefined : range(publishedFrom, publishedTo);
  if (published !== undefined && published.length !== targets.length) {
    throw new InvalidArgumentError('expected as many published ports as target ports');
  }
  return targets.map((target, index) => ({
    Protocol: protocol,
    TargetPort: target,
    PublishedPort: published?.[index] ?? 0,
    PublishMode: 'ingress',
  }));
}

function longForm(text: string): PortConfig {
  const fields = new Map<string, string>(); // BOUNDED by the length of the flag
  for (const field of text.split(',')) {
    const [, key, value] = /^(target|published|protocol|mode)=(.*)$/.exec(field) ?? [];
    if (key === undefined || value === undefined || fields.has(key)) {
      throw new InvalidArgumentError(
        `${JSON.stringify(field)} is not a field of a port: ${EXPECTED}`,
      );
    }
    fields.set(key, value);
  }
  const target = fields.get('target');
  if (target === undefined) throw new InvalidArgumentError(`target is missing: ${EXPECTED}`);
  const published = fields.get('published');
  const mode = fields.get('mode') ?? 'ingress';
  if (mode !== 'ingress' && mode !== 'host') {
    throw new InvalidArgumentError(
      `${JSON.stringify(mode)} is not a mode: expected ingress or host`,
    );
  }
  return {
    Protocol: toProtocol(fields.get('protocol') ?? 'tcp'),
    TargetPort: toPort(target),
    PublishedPort: published === undefined ? 0 : toPort(published),
    PublishMode: mode,
  };
}

function range(from: string | undefined, to: string | undefined): number[] {
  const first = toPort(from);
  const last = to === undefined ? first : toPort(to);
  if (last < first) {
    throw new InvalidArgumentError(`the range ${first}-${last} is empty: expected low-high`);
  }
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

function toPort(text: string | undefined): number {
  const value = /^\d+$/.test(text ?? '') ? Number(text) : 0;
  if (value < 1 || value > PORT_MAX) {
    throw new InvalidArgumentError(
      `${text} is not a port: expected a number from 1 to ${PORT_MAX}`,
    );
  }
  return value;
}

function toProtocol(text: string): 'tcp' | 'udp' {
  if (text === 'tcp' || text === 'udp') return text;
  throw new InvalidArgumentError(`${JSON.stringify(text)} is not a protocol: expected tcp or udp`);
}

/** Ports as tables show them: `*:8080->80/tcp`, those of `mode` only. */
export function formatPorts(ports: readonly PortConfig[], mode: 'ingress' | 'host'): string {
  return ports
    .filter((port) => (port.PublishMode ?? 'ingress') === mode)
    .map((port) => `*:${port.PublishedPort ?? 0}->${port.TargetPort}/${port.Protocol ?? 'tcp'}`)
    .join(', ');
}
