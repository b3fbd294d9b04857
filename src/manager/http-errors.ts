import type { Context, Hono, MiddlewareHandler } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { Log } from '../core/capabilities.ts';
import { httpStatusOf, ManagerError } from './errors.ts';

/** Answers refusals, bugs and unknown paths as Docker does: `{"message": …}`. */
export function answerErrors(app: Hono, log: Log): void {
  app.onError((error, context) => {
    if (error instanceof ManagerError) {
      return context.json({ message: error.message }, httpStatusOf(error.detail));
    }
    const { method, path } = context.req;
    log.error({ err: error, method, path }, 'request failed');
    return context.json({ message: 'internal error: the log of the manager has the details' }, 500);
  });
  app.notFound((context) => context.json({ message: 'page not found' }, 404));
}

/** Refuses bodies of more than `bytesMax`. */
export function limitBody(bytesMax: number): MiddlewareHandler {
  return bodyLimit({
    maxSize: bytesMax,
    onError: (context: Context) =>
      context.json({ message: `the request body is too large: ${bytesMax} bytes at most` }, 413),
  });
}
