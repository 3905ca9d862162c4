import { choice, count, list, milliseconds, section, text } from './setting.ts';

const memberSection = section('One agent.', {
  name: text({ default: '', minLength: 1, maxLength: 253, description: 'Name of its node.' }),
  address: text({
    default: '',
    minLength: 1,
    format: 'address',
    description: 'Where it listens for other nodes.',
  }),
});

/** Where the list of the other agents comes from. */
export const membersSection = section('Which other agents there are.', {
  source: choice(
    ['static', 'kubernetes', 'dns'],
    'Where the list comes from: this file, EndpointSlices of a Kubernetes Service, or DNS.',
    { reloadable: true },
  ),
  static: list(memberSection, {
    default: [],
    reloadable: true,
    description: 'Agents by name and address. This node may be among them.',
  }),
  kubernetes: section('Used when source is kubernetes.', {
    namespace: text({
      default: '',
      maxLength: 63,
      format: 'kubernetesName',
      reloadable: true,
      description: "Namespace of the Service. Empty: that of this Pod's service account.",
    }),
    service: text({
      default: 'salvor',
      maxLength: 63,
      format: 'kubernetesName',
      reloadable: true,
      description:
        'Headless Service that selects the agents, ready or not. Its port named agent, else its ' +
        'first, is where they listen.',
    }),
    kubeconfig: text({
      default: '',
      format: 'absolutePath',
      reloadable: true,
      description:
        'Kubeconfig file, for agents outside of Pods; costs some 40 MiB of memory. Empty: the ' +
        'service account of this Pod.',
    }),
  }),
  dns: section('Used when source is dns.', {
    name: text({
      default: '',
      maxLength: 253,
      format: 'dnsName',
      reloadable: true,
      description:
        'Fully qualified name. One that begins with an underscore, such as ' +
        '_peers._tcp.salvor.example.com, is asked for SRV records, every other for its addresses.',
    }),
    port: count(7490, 'Port of the agents, where the name has no SRV records.', {
      maximum: 65_535,
      reloadable: true,
    }),
    intervalMs: milliseconds(30_000, 'Between two questions.', {
      minimum: 1000,
      reloadable: true,
    }),
  }),
});
