import type { ConfigMistake } from './config-error.ts';
import { showValue } from './config-error.ts';
import type { Config, EndpointConfig, UpstreamConfig } from './schema.ts';
import { isLoopback } from './text-format.ts';

/** What a rule may look at. */
export interface RuleInput {
  readonly config: Config;
  /** The command that is about to run; rules about other commands' needs are left out. */
  readonly command: string | undefined;
  /** @returns where a setting was given, or "default" */
  readonly sourceOf: (key: string) => string;
}

interface Rule {
  /** Settings that the rule compares; it is not asked when one of them is wrong in itself. */
  readonly keys: readonly string[];
  readonly check: (input: RuleInput) => readonly ConfigMistake[];
}

/** What no single setting can tell: mistakes in how settings go together. */
export function checkRules(
  input: RuleInput,
  known: readonly ConfigMistake[],
): readonly ConfigMistake[] {
  const isWrong = (key: string): boolean =>
    known.some((mistake) => mistake.key === key || mistake.key.startsWith(`${key}[`));
  return rules.filter((rule) => !rule.keys.some(isWrong)).flatMap((rule) => rule.check(input));
}

function checkUpstreams({ config, sourceOf }: RuleInput): ConfigMistake[] {
  const source = sourceOf('registry.upstreams');
  return Object.entries(config.registry.upstreams).flatMap(([host, upstream]) => {
    const key = `registry.upstreams["${host}"]`;
    const mistakes: ConfigMistake[] = [
      ...checkEndpoint(upstream, { key, source }),
      ...upstream.endpoints.flatMap((endpoint, index) =>
        checkEndpoint(endpoint, { key: `${key}.endpoints[${index}]`, source }),
      ),
      ...checkOneForm(upstream, { key, source }),
    ];
    if (upstream.plainHttp && upstream.url.startsWith('https:')) {
      const found = showValue(upstream.url);
      mistakes.push({ key: `${key}.url`, source, found, expected: 'http, as plainHttp is true' });
    }
    return mistakes;
  });
}

interface Place {
  readonly key: string;
  readonly source: string;
}

/** What belongs together of one URL. */
function checkEndpoint(
  endpoint: Omit<EndpointConfig, 'url'>,
  { key, source }: Place,
): ConfigMistake[] {
  const mistakes: ConfigMistake[] = [];
  const { clientCertificate, clientKey } = endpoint;
  if (clientCertificate !== '' && clientKey === '') {
    mistakes.push({ key: `${key}.clientKey`, source, expected: 'a path beside clientCertificate' });
  }
  if (clientKey !== '' && clientCertificate === '') {
    mistakes.push({ key: `${key}.clientCertificate`, source, expected: 'a path beside clientKey' });
  }
  const seen = new Set<string>();
  for (const name of Object.keys(endpoint.headers)) {
    if (seen.has(name.toLowerCase())) {
      const expected = 'a name that no other header has, in upper or lower case';
      mistakes.push({ key: `${key}.headers["${name}"]`, source, expected });
    }
    seen.add(name.toLowerCase());
  }
  return mistakes;
}

/** One URL or several, but nothing that would silently count for none of them. */
function checkOneForm(upstream: UpstreamConfig, { key, source }: Place): ConfigMistake[] {
  if (upstream.endpoints.length === 0) return [];
  const { ca, clientCertificate, clientKey, credentials, headersFile, plainHttp, url } = upstream;
  const { namespace } = upstream;
  const given = {
    ...{ url: url !== '', ca: ca !== '', clientCertificate: clientCertificate !== '' },
    ...{ clientKey: clientKey !== '', headers: Object.keys(upstream.headers).length > 0 },
    ...{ headersFile: headersFile !== '', credentials: credentials !== 'auto', plainHttp },
    namespace,
  };
  return Object.entries(given)
    .filter(([, isGiven]) => isGiven)
    .map(([name]) => ({
      key: `${key}.${name}`,
      source,
      expected: 'nothing beside endpoints; each of them says it for itself',
    }));
}

function checkMirrors({ config, sourceOf }: RuleInput): ConfigMistake[] {
  const source = sourceOf('registry.mirrors');
  return config.registry.mirrors.flatMap((mirror, index) =>
    checkEndpoint(mirror, { key: `registry.mirrors[${index}]`, source }),
  );
}

function checkTlsFiles({ config, command, sourceOf }: RuleInput): ConfigMistake[] {
  const talksToNodes =
    command === 'agent' || (command === 'registry' && config.registry.agentSocket !== '');
  if (!talksToNodes || config.tls.mode === 'off') {
    return [];
  }
  return (['ca', 'certificate', 'key'] as const)
    .filter((name) => config.tls[name] === '')
    .map((name) => ({
      key: `tls.${name}`,
      source: sourceOf(`tls.${name}`),
      expected: 'the path of a PEM file, as tls.mode is mutual',
    }));
}

function checkTlsOff({ config, command, sourceOf }: RuleInput): ConfigMistake[] {
  if (config.tls.mode !== 'off' || (command !== 'agent' && command !== 'registry')) {
    return [];
  }
  const expected = 'a loopback address, as tls.mode is off';
  const { source: memberSource } = config.agent.members;
  if (memberSource !== 'static') {
    const key = 'agent.members.source';
    const found = showValue(memberSource);
    return [{ key, source: sourceOf(key), found, expected: 'static, as tls.mode is off' }];
  }
  const mistakes = config.agent.members.static.flatMap((member, index): ConfigMistake[] => {
    const key = `agent.members.static[${index}].address`;
    const source = sourceOf('agent.members.static');
    return isLoopback(member.address)
      ? []
      : [{ key, source, found: showValue(member.address), expected }];
  });
  const source = sourceOf('agent.listen');
  // A registry's configuration may well leave out where its agent listens.
  const listenMatters = command === 'agent' || source !== 'default';
  if (listenMatters && !isLoopback(config.agent.listen)) {
    const found = showValue(config.agent.listen);
    mistakes.unshift({ key: 'agent.listen', source, found, expected });
  }
  return mistakes;
}

function checkMembers({ config, sourceOf }: RuleInput): ConfigMistake[] {
  const seen = new Set<string>();
  return config.agent.members.static.flatMap(({ name }, index): ConfigMistake[] => {
    if (!seen.has(name)) {
      seen.add(name);
      return [];
    }
    const key = `agent.members.static[${index}].name`;
    const source = sourceOf('agent.members.static');
    return [{ key, source, found: showValue(name), expected: 'a name that no other member has' }];
  });
}

function checkMemberSource({ config, command, sourceOf }: RuleInput): ConfigMistake[] {
  const { source, kubernetes, dns } = config.agent.members;
  const missing =
    command === 'agent' &&
    ((source === 'kubernetes' && kubernetes.service === '' && 'kubernetes.service') ||
      (source === 'dns' && dns.name === '' && 'dns.name'));
  if (missing === false) return [];
  const key = `agent.members.${missing}`;
  return [{ key, source: sourceOf(key), expected: `a name, as agent.members.source is ${source}` }];
}

function checkListeners({ config, sourceOf }: RuleInput): ConfigMistake[] {
  return (['registry', 'agent', 'start'] as const).flatMap((name): ConfigMistake[] => {
    const { listen, admin } = config[name];
    const key = `${name}.admin`;
    return listen === admin && !listen.endsWith(':0')
      ? [
          {
            key,
            source: sourceOf(key),
            found: showValue(admin),
            expected: `an address other than ${name}.listen`,
          },
        ]
      : [];
  });
}

function checkInFlight({ config, sourceOf }: RuleInput): ConfigMistake[] {
  const { inFlightBytes, maxManifestBytes } = config.registry.limits;
  if (inFlightBytes >= maxManifestBytes) return [];
  const key = 'registry.limits.inFlightBytes';
  const found = showValue(inFlightBytes);
  const expected = 'at least registry.limits.maxManifestBytes, as a manifest is held in full';
  return [{ key, source: sourceOf(key), found, expected }];
}

function checkCopies({ config, sourceOf }: RuleInput): ConfigMistake[] {
  const { releaseAtPercent, dropAtPercent } = config.agent.copies;
  if (releaseAtPercent < dropAtPercent) return [];
  const key = 'agent.copies.releaseAtPercent';
  const found = showValue(releaseAtPercent);
  const expected = `less than agent.copies.dropAtPercent (${dropAtPercent})`;
  return [{ key, source: sourceOf(key), found, expected }];
}

function checkBootstrap({ config, command, sourceOf }: RuleInput): ConfigMistake[] {
  const { listen, repositories } = config.agent.bootstrap;
  if (listen === '') return [];
  const mistakes: ConfigMistake[] = [];
  if (repositories.length === 0) {
    const key = 'agent.bootstrap.repositories';
    const expected = 'what may be read there, as agent.bootstrap.listen is given';
    mistakes.push({ key, source: sourceOf(key), expected });
  }
  const key = 'agent.bootstrap.listen';
  const place = { key, source: sourceOf(key), found: showValue(listen) };
  if (command === 'agent' && config.tls.mode === 'off') {
    mistakes.push({ ...place, expected: 'nothing, as tls.mode is off' });
  }
  const { admin, listen: peers } = config.agent;
  if (!listen.endsWith(':0') && [admin, peers].includes(listen)) {
    const expected = 'an address other than agent.listen and agent.admin';
    mistakes.push({ ...place, expected });
  }
  return mistakes;
}

const rules: readonly Rule[] = [
  {
    keys: [
      'agent.bootstrap.listen',
      'agent.bootstrap.repositories',
      'agent.listen',
      'agent.admin',
      'tls.mode',
    ],
    check: checkBootstrap,
  },
  { keys: ['registry.mirrors'], check: checkMirrors },
  {
    keys: ['agent.copies.releaseAtPercent', 'agent.copies.dropAtPercent'],
    check: checkCopies,
  },
  { keys: ['registry.upstreams'], check: checkUpstreams },
  {
    keys: ['tls.mode', 'tls.ca', 'tls.certificate', 'tls.key', 'registry.agentSocket'],
    check: checkTlsFiles,
  },
  {
    keys: ['tls.mode', 'agent.listen', 'agent.members.static', 'agent.members.source'],
    check: checkTlsOff,
  },
  {
    keys: ['agent.members.source', 'agent.members.kubernetes.service', 'agent.members.dns.name'],
    check: checkMemberSource,
  },
  { keys: ['agent.members.static'], check: checkMembers },
  {
    keys: ['registry.limits.inFlightBytes', 'registry.limits.maxManifestBytes'],
    check: checkInFlight,
  },
  {
    keys: [
      'registry.listen',
      'registry.admin',
      'agent.listen',
      'agent.admin',
      'start.listen',
      'start.admin',
    ],
    check: checkListeners,
  },
];
