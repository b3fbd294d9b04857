import type { NodeRecord } from './records.ts';

/** One condition on a node, such as `node.labels.disk==ssd`. */
export interface Constraint {
  readonly attribute: string;
  readonly equal: boolean;
  readonly value: string;
}

/** Longer texts are no constraints: it keeps the pattern's backtracking cheap. */
const CONSTRAINT_LENGTH_MAX = 512;
const CONSTRAINT_PATTERN = /^\s*([a-z0-9_.-]+)\s*(==|!=)\s*(.*?)\s*$/i;
const ATTRIBUTES = [
  'node.id',
  'node.hostname',
  'node.role',
  'node.platform.os',
  'node.platform.arch',
] as const;
const LABEL_PREFIXES = ['node.labels.', 'engine.labels.'] as const;

/** Reads a constraint (swarmkit `manager/constraint`); undefined if it is not one. */
export function parseConstraint(text: string): Constraint | undefined {
  if (text.length > CONSTRAINT_LENGTH_MAX) return undefined;
  const [, attribute = '', operator, value = ''] = CONSTRAINT_PATTERN.exec(text) ?? [];
  const known =
    ATTRIBUTES.some((name) => name === attribute.toLowerCase()) ||
    LABEL_PREFIXES.some((prefix) => attribute.startsWith(prefix) && attribute !== prefix);
  if (operator === undefined || !known || value === '') return undefined;
  return { attribute, equal: operator === '==', value };
}

/** Whether `node` meets every one of `constraints`; values compare without regard to case. */
export function meetsConstraints(node: NodeRecord, constraints: readonly Constraint[]): boolean {
  return constraints.every(({ attribute, equal, value }) => {
    const actual = attributeOf(node, attribute) ?? '';
    return (actual.toLowerCase() === value.toLowerCase()) === equal;
  });
}

function attributeOf(node: NodeRecord, attribute: string): string | undefined {
  if (attribute.startsWith('node.labels.')) return label(node.labels, attribute, 'node.labels.');
  if (attribute.startsWith('engine.labels.')) {
    return label(node.description.labels ?? {}, attribute, 'engine.labels.');
  }
  switch (attribute.toLowerCase()) {
    case 'node.id':
      return node.id;
    case 'node.hostname':
      return node.description.hostname;
    case 'node.role':
      return node.role;
    case 'node.platform.os':
      return node.description.platform.os;
    default:
      return node.description.platform.architecture;
  }
}

function label(
  labels: Readonly<Record<string, string>>,
  attribute: string,
  prefix: string,
): string | undefined {
  const name = attribute.slice(prefix.length);
  return Object.hasOwn(labels, name) ? labels[name] : undefined;
}
