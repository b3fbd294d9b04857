import { AddressWords } from '../core/address-words.ts';

/** Scope and protocol as one signed 32-bit integer: part of a flow's key. */
export function packOwner(scope: number, protocol: number): number {
  return scope | (protocol << 24);
}

/** The scope of an owner. */
export function scopeOf(owner: number): number {
  return owner & 0xff_ffff;
}

/** The IP protocol of an owner. */
export function protocolOf(owner: number): number {
  return owner >>> 24;
}

/** Two ports as one signed 32-bit integer: part of a flow's key. */
export function packPorts(source: number, destination: number): number {
  return (source << 16) | destination;
}

/** What names one direction of a flow. A reused object. */
export class FlowKey {
  /** Scope in the low 24 bits, IP protocol in the high 8. */
  owner = 0;
  /** Both of one family. */
  readonly source: AddressWords = new AddressWords();
  readonly destination: AddressWords = new AddressWords();
  /** Source port in the high 16 bits, destination port in the low ones; ICMP echo has its identifier twice. */
  ports = 0;

  /** Takes the key of packets from `source` to `destination`; copies both. */
  set(owner: number, source: AddressWords, destination: AddressWords, ports: number): void {
    this.owner = owner;
    this.source.copy(source);
    this.destination.copy(destination);
    this.ports = ports;
  }
}
