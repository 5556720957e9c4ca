// The published OFREP web provider under the web SDK, driven by lines of JSON: commands on standard input, what
// happens on standard output. It ends with its input.
//
//   node provider.mjs BASE_URL ACCESS_KEY EVALUATION_CONTEXT

import { createInterface } from 'node:readline';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { OpenFeature, ProviderEvents } from '@openfeature/web-sdk';
import { EventSource } from 'eventsource';

const [baseUrl, accessKey, evaluationContext] = process.argv.slice(2);

const say = (what, more) => console.log(JSON.stringify({ what, ...more }));

// A browser has one; Node 20 has none.
globalThis.EventSource = EventSource;

// What the provider asks, and what it is answered.
const fetchAndTell = async (input, init) => {
  const request = new Request(input, init);
  const ifNoneMatch = request.headers.get('if-none-match');
  const response = await fetch(request);
  const { pathname, searchParams } = new URL(request.url);
  say('fetch', {
    path: pathname,
    flagConfigEtag: searchParams.get('flagConfigEtag'),
    ifNoneMatch,
    status: response.status,
    etag: response.headers.get('etag'),
  });
  return response;
};

const provider = new OFREPWebProvider({
  baseUrl,
  headersFactory: () => [['Authorization', `Bearer ${accessKey}`]],
  fetchImplementation: fetchAndTell,
  cacheMode: 'disabled', // there is no localStorage under Node
  pollInterval: 0, // what it knows of changes, it knows from the event stream
});

const client = OpenFeature.getClient();
client.addHandler(ProviderEvents.Ready, () => say('ready'));
client.addHandler(ProviderEvents.Stale, () => say('stale'));
client.addHandler(ProviderEvents.Error, ({ message }) => say('error', { message }));
client.addHandler(ProviderEvents.ConfigurationChanged, ({ flagsChanged }) => say('changed', { flagsChanged }));

const get = {
  boolean: (key, otherwise) => client.getBooleanDetails(key, otherwise),
  string: (key, otherwise) => client.getStringDetails(key, otherwise),
  number: (key, otherwise) => client.getNumberDetails(key, otherwise),
  object: (key, otherwise) => client.getObjectDetails(key, otherwise),
};

const commands = {
  get: ({ type, key, otherwise }) => say('details', get[type](key, otherwise)),
  context: async ({ context }) => {
    await OpenFeature.setContext(context);
    say('context');
  },
};

await OpenFeature.setContext(JSON.parse(evaluationContext));
// A provider that cannot start has said so as an event.
await OpenFeature.setProviderAndWait(provider).catch(() => {});

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...options } = JSON.parse(line);
  await commands[command](options);
}
await OpenFeature.close();
