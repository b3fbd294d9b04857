/**
 * The URL of a worker thread's module beside the calling one: `.ts` in a source checkout, `.js` when
 * compiled. The compiler rewrites import specifiers only, not strings.
 *
 * @param from - The caller's `import.meta.url`.
 * @param module - Relative path without extension.
 */
export function workerUrl(from: string, module: string): URL {
  return new URL(`${module}${from.endsWith('.ts') ? '.ts' : '.js'}`, from);
}
