import type { Random } from '../core/capabilities.ts';
import type { StateView } from './cluster-state.ts';
import { nameKey } from './keys.ts';

const ADJECTIVES = [
  'amber',
  'brisk',
  'calm',
  'deft',
  'eager',
  'fine',
  'gentle',
  'humble',
  'keen',
  'lively',
  'mellow',
  'nimble',
  'plain',
  'quiet',
  'steady',
  'tidy',
] as const;
const WEAVES = [
  'batiste',
  'brocade',
  'calico',
  'chintz',
  'damask',
  'denim',
  'flannel',
  'gauze',
  'linen',
  'muslin',
  'organza',
  'poplin',
  'satin',
  'serge',
  'tweed',
  'velvet',
] as const;

/** A free name for a service that was given none: `quiet_linen`, with a number when that is taken. */
export function randomServiceName(view: StateView, random: Random): string {
  const pick = (words: readonly string[]): string =>
    words[Math.floor(random.next() * words.length)] ?? '';
  const base = `${pick(ADJECTIVES)}_${pick(WEAVES)}`;
  let name = base;
  for (let suffix = 2; view.get(nameKey('services', name)) !== undefined; suffix += 1) {
    name = `${base}${suffix}`;
  }
  return name;
}
