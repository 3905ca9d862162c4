import { describe, expect, test } from 'vitest';
import {
  readState,
  writeState,
  type AuthorityState,
} from '../../../src/identity/authority-state.ts';
import {
  CertificateIssuer,
  type IssueReport,
  type IssueRequest,
} from '../../../src/identity/certificate-issuer.ts';
import type { AuthorityStore, IdentityStore } from '../../../src/identity/identity-store.ts';
import { certificatesIn, checkIdentity, isIssuedBy } from '../../../src/rpc/identity-facts.ts';
import type { Identity, Role } from '../../../src/rpc/identity.ts';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const times = { identityValidMs: 90 * dayMs, authorityValidMs: 900 * dayMs, settleMs: hourMs };

/** Counts writes; the one that is told to break does not happen, and throws. */
class Disk {
  writes = 0;
  breakAt = Infinity;

  write(take: () => void): void {
    this.writes += 1;
    if (this.writes === this.breakAt) throw new Error('power cut');
    take();
  }
}

class MemoryAuthority implements AuthorityStore {
  readonly name = 'authority';
  text: string | undefined;
  readonly #disk: Disk;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  async read(): Promise<AuthorityState | undefined> {
    return this.text === undefined ? undefined : readState(this.text);
  }

  async write(state: AuthorityState): Promise<void> {
    this.#disk.write(() => (this.text = writeState(state)));
  }
}

class MemoryIdentity implements IdentityStore {
  readonly name: string;
  readonly roles: readonly Role[];
  identity: Identity | undefined;
  readonly #disk: Disk;

  constructor(role: Role, disk: Disk) {
    this.name = role;
    this.roles = [role];
    this.#disk = disk;
  }

  async read(): Promise<Identity | undefined> {
    return this.identity;
  }

  async write(identity: Identity): Promise<void> {
    this.#disk.write(() => (this.identity = identity));
  }
}

class Scene {
  readonly disk = new Disk();
  readonly authority = new MemoryAuthority(this.disk);
  readonly agent = new MemoryIdentity('agent', this.disk);
  readonly registry = new MemoryIdentity('registry', this.disk);
  /** What nodes run with, each as of when it last looked. */
  readonly running = new Map<string, Identity>();
  nowMs = Date.UTC(2026, 0, 1);

  async run(request: IssueRequest = {}): Promise<IssueReport> {
    const identities = [this.agent, this.registry];
    const dependencies = { authority: this.authority, identities, now: () => this.nowMs };
    return new CertificateIssuer(times, dependencies).run(request);
  }

  /** Half of the nodes look; the others are late. */
  look(isLate: boolean): void {
    for (const store of [this.agent, this.registry]) {
      const { identity } = store;
      if (identity !== undefined) this.running.set(`${store.name} ${isLate}`, identity);
    }
  }

  /** Every node, in whatever state it is, must accept every other. */
  expectPeace(): void {
    for (const [one, { ca }] of this.running) {
      for (const [other, { certificate }] of this.running) {
        const isAccepted = isIssuedBy(certificatesIn(certificate), certificatesIn(ca));
        expect(isAccepted, `${one} accepts ${other}`).toBe(true);
      }
    }
  }

  facts(store: MemoryIdentity) {
    return checkIdentity(store.identity!, { nowMs: this.nowMs });
  }
}

async function steadyScene(): Promise<Scene> {
  const scene = new Scene();
  await scene.run();
  scene.look(false);
  scene.look(true);
  return scene;
}

describe('CertificateIssuer addresses', () => {
  const addresses = (scene: Scene) =>
    [scene.agent, scene.registry].map((store) => scene.facts(store).addresses);

  test('CertificateIssuer puts addresses into identities of agents, and keeps them there', async () => {
    const scene = await steadyScene();
    expect(addresses(scene)).toEqual([[], []]);
    const wanted = ['10.0.0.2', 'FD00:0::1', 'Node-C.test', '*.nodes.test', '10.0.0.2'];
    const { done } = await scene.run({ agentAddresses: wanted });
    expect(done).toEqual(['agent: issued for agent, the old one was for other addresses']);
    const inOrder = ['*.nodes.test', '10.0.0.2', 'fd00::1', 'node-c.test'];
    expect(addresses(scene)).toEqual([inOrder, []]);
    expect((await scene.run({ agentAddresses: wanted })).done).toEqual([]);
    // Whoever renews need not know them.
    await scene.run({ renewIdentities: true });
    expect(addresses(scene)).toEqual([inOrder, []]);
    scene.nowMs += 80 * dayMs;
    expect((await scene.run()).done).toHaveLength(2);
    expect(addresses(scene)).toEqual([inOrder, []]);
    await scene.run({ agentAddresses: ['10.0.0.3'] });
    expect(addresses(scene)).toEqual([['10.0.0.3'], []]);
  });

  test('CertificateIssuer issues anew what cannot be read, without addresses', async () => {
    const scene = await steadyScene();
    await scene.run({ agentAddresses: ['10.0.0.2'] });
    scene.agent.identity = { ...scene.agent.identity!, certificate: Buffer.from('broken') };
    expect((await scene.run()).done).toHaveLength(1);
    expect(addresses(scene)).toEqual([[], []]);
  });
});

describe('CertificateIssuer', () => {
  test('CertificateIssuer makes an authority and identities once', async () => {
    const scene = new Scene();
    const first = await scene.run();
    expect(first.done).toHaveLength(3);
    expect(first).toMatchObject({ phase: 'steady', nextStepAtMs: undefined });
    expect([...scene.facts(scene.agent).roles]).toEqual(['agent']);
    expect([...scene.facts(scene.registry).roles]).toEqual(['registry']);
    expect(scene.facts(scene.agent).authorities).toHaveLength(1);
    const { writes } = scene.disk;
    expect((await scene.run()).done).toEqual([]);
    expect(scene.disk.writes).toBe(writes);
  });

  test('CertificateIssuer renews what has less than a third of its life left', async () => {
    const scene = await steadyScene();
    const before = scene.facts(scene.agent).leaf;
    scene.nowMs += 59 * dayMs;
    expect((await scene.run()).done).toEqual([]);
    scene.nowMs += 2 * dayMs;
    const { done } = await scene.run();
    expect(done).toEqual([
      'agent: issued for agent, the old one is near its end',
      'registry: issued for registry, the old one is near its end',
    ]);
    expect(scene.facts(scene.agent).leaf.notAfterMs).toBeGreaterThan(before.notAfterMs);
    scene.look(false);
    scene.expectPeace();
  });

  test('CertificateIssuer replaces the authority in steps, at each of which all nodes get on', async () => {
    const scene = await steadyScene();
    const phases: string[] = [];
    for (let step = 0; step < 4; step += 1) {
      const { phase } = await scene.run({ replaceAuthority: step === 0 });
      phases.push(phase);
      scene.look(false);
      scene.expectPeace();
      // Too early: nothing may happen while some nodes have not looked.
      scene.nowMs += hourMs - 1;
      const { writes } = scene.disk;
      expect((await scene.run()).phase).toBe(phase);
      expect(scene.disk.writes).toBe(writes);
      scene.look(true);
      scene.expectPeace();
      scene.nowMs += 1;
    }
    expect(phases).toEqual(['introducing', 'replacing', 'steady', 'steady']);
    expect(scene.facts(scene.agent).authorities).toHaveLength(1);
    // The key of the first authority is gone.
    expect(Object.keys((await scene.authority.read()) ?? {})).not.toContain('previous');
  });

  test('CertificateIssuer goes on after a power cut at any write, and nodes get on throughout', async () => {
    for (let breakAt = 1; breakAt < 19; breakAt += 1) {
      const scene = new Scene();
      scene.disk.breakAt = breakAt;
      let wanted = true;
      for (let round = 0; round < 8; round += 1) {
        const isSteady = (await scene.authority.read())?.phase === 'steady';
        const request = { replaceAuthority: wanted && isSteady };
        const report = await scene.run(request).catch(() => undefined);
        if (report !== undefined && request.replaceAuthority) wanted = false;
        scene.look(false);
        scene.expectPeace();
        scene.nowMs += hourMs;
        scene.look(true);
        scene.expectPeace();
      }
      expect(await scene.authority.read(), `cut at write ${breakAt}`).toMatchObject({
        phase: 'steady',
      });
      expect(scene.facts(scene.agent).authorities).toHaveLength(1);
      expect((await scene.run()).done).toEqual([]);
    }
  }, 30_000);

  test('CertificateIssuer begins by itself to replace an authority that is near its end', async () => {
    const scene = await steadyScene();
    const steps = new Set<string>();
    for (let day = 0; day < 2000; day += 5) {
      scene.nowMs += 5 * dayMs;
      steps.add((await scene.run()).phase);
      scene.look(false);
      scene.expectPeace();
      scene.look(true);
      scene.facts(scene.agent);
    }
    expect(steps).toEqual(new Set(['steady', 'introducing', 'replacing']));
  });

  test('CertificateIssuer takes over nodes whose authority is lost, or somebody else’s', async () => {
    const scene = await steadyScene();
    scene.authority.text = undefined;
    const { done, phase } = await scene.run();
    expect(phase).toBe('introducing');
    expect(done).toContain('agent: now trusts 2 authorities');
    for (let step = 0; step < 3; step += 1) {
      scene.look(false);
      scene.expectPeace();
      scene.nowMs += hourMs;
      scene.look(true);
      scene.expectPeace();
      await scene.run();
    }
    expect(scene.facts(scene.agent).authorities).toHaveLength(1);
  });

  test('CertificateIssuer waits anew when something had to be put right', async () => {
    const scene = await steadyScene();
    await scene.run({ replaceAuthority: true });
    scene.nowMs += hourMs;
    scene.registry.identity = undefined;
    expect(await scene.run()).toMatchObject({ phase: 'introducing' });
    scene.nowMs += hourMs - 1;
    expect(await scene.run()).toMatchObject({ phase: 'introducing' });
    scene.nowMs += 1;
    expect(await scene.run()).toMatchObject({ phase: 'replacing' });
  });

  test.each([
    ['key', 'certificate'],
    ['ca', 'key'],
  ] as const)('CertificateIssuer puts a broken identity right: %s', async (part, other) => {
    const scene = await steadyScene();
    const { identity } = scene.agent;
    scene.agent.identity = { ...identity!, [part]: identity![other] };
    await scene.run();
    scene.facts(scene.agent);
    expect(scene.facts(scene.agent).authorities).toHaveLength(1);
  });

  test('CertificateIssuer issues everything anew when asked', async () => {
    const scene = await steadyScene();
    const before = scene.facts(scene.agent).leaf.fingerprint;
    const { done } = await scene.run({ renewIdentities: true });
    expect(done).toEqual([
      'agent: issued for agent, as asked',
      'registry: issued for registry, as asked',
    ]);
    expect(scene.facts(scene.agent).leaf.fingerprint).not.toBe(before);
    scene.look(false);
    scene.expectPeace();
  });

  test('CertificateIssuer does not go on without an identity that it has issued', async () => {
    const scene = await steadyScene();
    const run = (request: IssueRequest) =>
      new CertificateIssuer(times, {
        authority: scene.authority,
        identities: [scene.agent],
        now: () => scene.nowMs,
      }).run(request);
    await expect(run({})).rejects.toThrow('has issued identities for registry, too');
    expect((await run({ forget: ['registry'] })).phase).toBe('steady');
    expect((await run({})).phase).toBe('steady');
  });

  test('CertificateIssuer issues nothing that outlives its authority', async () => {
    const scene = await steadyScene();
    scene.nowMs += 870 * dayMs;
    await scene.run();
    const { leaf, authorities } = scene.facts(scene.agent);
    expect(leaf.notAfterMs).toBeLessThanOrEqual(authorities[0]!.notAfterMs);
  });
});

describe('readState', () => {
  test('readState takes nothing but its own format, and repeats nothing of it', () => {
    const good = { phase: 'steady', current: { certificate: 'c', key: 'secret' }, targets: [] };
    const bad: unknown[] = [
      ...['', 'secret', '[]', 'null', '{"secret":', JSON.stringify({ ...good, version: 2 })],
      ...[{ current: undefined }, { phase: 'introducing' }, { phase: 'x' }, { targets: 'a' }].map(
        (change) => JSON.stringify({ version: 1, ...good, ...change }),
      ),
    ];
    expect(readState(JSON.stringify({ version: 1, ...good }))).toEqual(good);
    for (const text of bad) {
      expect(() => readState(text as string)).toThrow(/^Cannot read the authority: (?!.*secret)/);
    }
  });
});
