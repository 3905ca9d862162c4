import { join } from 'node:path';
import { afterAll, afterEach, beforeAll } from 'vitest';
import { createAuthority, issueIdentity, type Authority } from '../../src/rpc/certificates.ts';
import type { Identity, Role } from '../../src/rpc/identity.ts';
import { makeSocketDirectory, removeDirectory } from '../support/work-dir.ts';
import { AgentScene } from './agent-scene.ts';

/** What the tests of one file have in common. */
export interface AgentSuite {
  /** Of the cluster that the scenes are nodes of. */
  readonly authority: Authority;
  /** Of the scenes, and of clients that are not special. */
  readonly identity: Identity;
  /** Starts one that ends with the test. */
  readonly start: (
    options?: Partial<Parameters<typeof AgentScene.start>[0]>,
  ) => Promise<AgentScene>;
}

/**
 * Has scenes for the tests of a file, to be called at its top.
 *
 * @param roles of their identity
 */
export function agentSuite(roles: readonly Role[] = ['agent']): AgentSuite {
  const scenes: AgentScene[] = [];
  let authority: Authority;
  let identity: Identity;
  let directory: string;

  beforeAll(async () => {
    authority = await createAuthority();
    identity = await issueIdentity(authority, roles);
    directory = await makeSocketDirectory();
  });

  afterEach(async () => {
    for (const scene of scenes.splice(0)) await scene[Symbol.asyncDispose]();
  });

  afterAll(() => removeDirectory(directory));

  return {
    get authority() {
      return authority;
    },
    get identity() {
      return identity;
    },
    async start(options = {}) {
      const socket = join(directory, `agent-${scenes.length}.sock`);
      const scene = await AgentScene.start({ identity, socket, ...options });
      scenes.push(scene);
      return scene;
    },
  };
}
