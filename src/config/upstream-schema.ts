import { choice, flag, list, map, milliseconds, section, text } from './setting.ts';

/** What is known of a URL that is asked, beside the URL. */
const endpointProperties = {
  ca: text({
    default: '',
    format: 'absolutePath',
    description: 'PEM file of authorities to trust for it, beside the usual ones.',
  }),
  clientCertificate: text({
    default: '',
    format: 'absolutePath',
    description: 'PEM file of the certificate to present. Needs clientKey.',
  }),
  clientKey: text({
    default: '',
    format: 'absolutePath',
    description: 'PEM file of its private key. Needs clientCertificate.',
  }),
  headers: map(
    text({
      default: '',
      minLength: 1,
      format: 'headerValue',
      secret: true,
      description: 'What it says. Never shown anywhere.',
    }),
    {
      keyFormat: 'headerName',
      description:
        'Request headers, sent to its own host alone, never to where it redirects. Authorization ' +
        "takes the place of the client's.",
    },
  ),
  headersFile: text({
    default: '',
    format: 'absolutePath',
    description:
      'File of more such headers, one "Name: value" a line; read when the upstream is first asked.',
  }),
  credentials: choice(
    ['auto', 'forward', 'none'],
    "Whether it gets the client's Authorization. auto: if it is the registry's own host, or the " +
      'only URL. A refusal of credentials that are not those of the client counts as a failure.',
  ),
  namespace: flag(
    false,
    'Say in ns= which registry is meant, as containerd does; for a cache of several registries.',
  ),
};

/** One of several URLs of an upstream, or a mirror of all. */
export const endpointSection = section('One URL of an upstream registry.', {
  url: text({
    default: '',
    minLength: 1,
    format: 'apiUrl',
    description: 'As url of the upstream.',
  }),
  ...endpointProperties,
});

/** A registry that images come from. */
export const upstreamSection = section('One upstream registry.', {
  url: text({
    default: '',
    format: 'apiUrl',
    description:
      'Where its API answers. A path stands in place of /v2, as with override_path of ' +
      "containerd's hosts.toml: https://harbor.example.com/v2/hub is asked for " +
      '/v2/hub/library/nginx/manifests/1. Empty: https (or http) at the host itself, and ' +
      'https://registry-1.docker.io for docker.io.',
  }),
  ...endpointProperties,
  endpoints: list(endpointSection, {
    default: [],
    description:
      'Several URLs, in the order in which they are asked; url and what belongs to it must not be ' +
      'given then. The next one is asked when one fails, limits the rate, has not got it or ' +
      "refuses credentials that are not the client's.",
  }),
  plainHttp: flag(false, 'Speak http where no url is given.'),
  peers: choice(
    ['fallback', 'prefer'],
    'When nodes are asked for blobs: after the upstream has failed, or before it.',
  ),
  allowAddresses: list(text({ default: '', format: 'cidr', description: 'An address block.' }), {
    default: [],
    description:
      'Address blocks that may be dialled for it although they are loopback, link-local or ' +
      'metadata addresses.',
  }),
});

/** What holds for some repositories. */
export const policySection = section('What holds for the repositories that a pattern matches.', {
  match: text({
    default: '',
    minLength: 1,
    format: 'namePattern',
    description: 'Registry and repository, such as docker.io/library/* or *.',
  }),
  mode: choice(
    ['serve', 'observe', 'bypass'],
    'serve; observe: forward only, nodes never answer; bypass: 404 at once, so that clients go ' +
      'to the upstream themselves.',
  ),
  access: choice(
    ['cluster', 'online'],
    "Who may have a node's copy: every Pod of the cluster, or nobody unless the upstream has " +
      'consented to that very request.',
  ),
  peers: choice(
    ['fallback', 'prefer'],
    "When nodes are asked for digests; takes the place of the upstream's own setting.",
  ),
  staleOn: list(text({ default: '', format: 'staleCause', description: 'A trouble.' }), {
    default: ['unreachable', '5xx', '429'],
    description:
      'Troubles of the upstream in which nodes answer tags; gone stands for its answer 404.',
  }),
  staleMaxAgeMs: milliseconds(0, 'Oldest confirmation of a tag that may be used. 0: any age.', {
    minimum: 0,
    maximum: 3650 * 86_400_000,
  }),
});
