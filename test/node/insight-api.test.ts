import { test } from 'tap';
import type { CaptureRequest } from '../../src/node/capture-target.ts';
import type { EndpointRequest } from '../../src/node/endpoint-report.ts';
import type { FlowRequest } from '../../src/node/flow-report.ts';
import type { Insight } from '../../src/node/insight.ts';
import { insightApi } from '../../src/node/insight-api.ts';
import { localApi } from '../../src/node/local-api.ts';
import { LocalApiError } from '../../src/node/local-api-error.ts';

/** The API of an agent, and what it was asked. */
function makeApi() {
  const captures: (readonly [string, CaptureRequest])[] = [];
  const flows: FlowRequest[] = [];
  const insight = {
    captures: {
      start: (id: string, request: CaptureRequest) => {
        captures.push([id, request]);
        return Promise.resolve(ReadableStream.from([Uint8Array.of(1, 2), Uint8Array.of(3)]));
      },
      end: (id: string) => id === 'runs',
    },
    flows: (request: FlowRequest) => {
      flows.push(request);
      if (request.network === 'x') throw new LocalApiError(404, 'Cannot find "x"');
      return { flows: [], next: 9 };
    },
    endpoints: (request: EndpointRequest) => [{ asked: request }],
    digests: () => [{ endpoints: 1, digest: '00' }],
    members: () => [{ name: 'host1' }],
  } as unknown as Insight;
  return { api: insightApi(() => insight), captures, flows, insight };
}

test('a capture is streamed as it was asked for', async (t) => {
  const { api, captures } = makeApi();
  const plain = await api.request('/capture?id=a-1&network=web');
  t.equal(plain.status, 200);
  t.equal(plain.headers.get('content-type'), 'application/x-pcapng');
  t.same(new Uint8Array(await plain.arrayBuffer()), Uint8Array.of(1, 2, 3));
  await api.request('/capture?id=b&network=web&task=web.1&snaplen=96&count=5&durationMs=1500');
  await api.request('/capture?id=c&network=web&peer=host2');
  const snaplen = 262_144;
  t.same(captures, [
    ['a-1', { network: 'web', snaplen }],
    ['b', { network: 'web', task: 'web.1', snaplen: 96, count: 5, durationMs: 1_500 }],
    ['c', { network: 'web', peer: 'host2', snaplen }],
  ]);
});

test('a capture is ended by its id', async (t) => {
  const { api } = makeApi();
  t.equal((await api.request('/capture/runs/end', { method: 'POST' })).status, 204);
});

test('flows are asked for in pages', async (t) => {
  const { api, flows } = makeApi();
  const page = await api.request('/flows');
  t.same(await page.json(), { flows: [], next: 9 });
  await api.request('/flows?network=web&task=web.1&service=web&limit=7&cursor=9');
  t.same(flows, [
    { limit: 1_000, cursor: 0 },
    { network: 'web', task: 'web.1', service: 'web', limit: 7, cursor: 9 },
  ]);
});

test('what gossip knows is shown', async (t) => {
  const { api } = makeApi();
  const json = async (path: string) => await (await api.request(path)).json();
  t.same(await json('/endpoints?network=web&service=s&node=n'), {
    endpoints: [{ asked: { network: 'web', service: 's', node: 'n' } }],
  });
  t.same(await json('/endpoints'), { endpoints: [{ asked: {} }] });
  t.same(await json('/endpoints/digest'), { digests: [{ endpoints: 1, digest: '00' }] });
  t.same(await json('/gossip/members'), { members: [{ name: 'host1' }] });
});

/** The whole local API, with what it is not asked left out. */
function localApiOf(insight: Insight | undefined) {
  return localApi({ insight: () => insight } as unknown as Parameters<typeof localApi>[0]);
}

for (const [path, status, message] of [
  ['/capture?network=web', 400, 'Invalid id: expected an id of your own, received nothing'],
  ['/capture?id=a', 400, 'Invalid network: expected a name or an id, received nothing'],
  [
    '/capture?id=a/b&network=web',
    400,
    'Invalid id: expected at most 64 letters, digits, - or _, received "a/b"',
  ],
  [
    '/capture?id=a&network=web&snaplen=13',
    400,
    'Invalid snaplen: expected a whole number from 14 to 262144, received "13"',
  ],
  ['/capture?id=a&network=web&count=0', 400, /^Invalid count: expected a whole number from 1 to/],
  ['/capture?id=a&network=web&durationMs=1e3', 400, /^Invalid durationMs: .*, received "1e3"$/],
  [
    '/flows?limit=1001',
    400,
    'Invalid limit: expected a whole number from 1 to 1000, received "1001"',
  ],
  ['/flows?cursor=-1', 400, /^Invalid cursor: /],
  ['/flows?network=', 400, /^Invalid network: /],
  ['/flows?network=x', 404, 'Cannot find "x"'],
  ['/endpoints?node=', 400, 'Invalid node: expected a name or an id, received ""'],
  ['/capture/none/end', 404, 'Cannot end the capture none: it does not run'],
] as const) {
  test(`${path} is refused`, async (t) => {
    const method = path.endsWith('/end') ? 'POST' : 'GET';
    const response = await localApiOf(makeApi().insight).request(`/weft${path}`, { method });
    t.equal(response.status, status);
    t.match(await response.json(), { message });
  });
}

test('a host in no cluster has nothing to show', async (t) => {
  for (const path of [
    '/weft/flows',
    '/weft/capture?id=a&network=web',
    '/weft/endpoints',
    '/weft/endpoints/digest',
    '/weft/gossip/members',
  ]) {
    const response = await localApiOf(undefined).request(path);
    t.equal(response.status, 503);
    t.match(await response.json(), { message: /^This node is in no cluster: / });
  }
});
