import { count, list, milliseconds, section, text } from './setting.ts';

/** Settings of the listener for nodes that Salvor has not come to yet. */
export const bootstrapSection = section(
  'HTTPS listener for containerd of nodes that Salvor has not come to yet. It gives out what this ' +
    'node holds of a few repositories, to clients with a certificate for the role bootstrap.',
  {
    listen: text({
      default: '',
      format: 'address',
      description: 'Its address, such as 0.0.0.0:7492. Empty: there is none.',
    }),
    repositories: list(
      text({
        default: '',
        minLength: 1,
        format: 'namePattern',
        description: 'Registry and repository, such as ghcr.io/salvor/salvor.',
      }),
      {
        default: [],
        reloadable: true,
        description:
          'What may be read there: patterns of registry and repository, such as ' +
          'ghcr.io/salvor/salvor or registry.k8s.io/pause. Must be given where it listens. ' +
          'registry.allow, registry.deny and registry.policies are heeded as well.',
      },
    ),
    maxRequests: count(32, 'Requests answered at a time; more get 503 at once.', {
      maximum: 4096,
    }),
    clientStallMs: milliseconds(30_000, 'How long a client may take nothing before it is dropped.'),
  },
);
