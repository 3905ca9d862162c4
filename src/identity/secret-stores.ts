import type { KubeApi, KubeObject } from '../kubernetes/kube-api.ts';
import { KubeError } from '../kubernetes/kube-error.ts';
import type { Identity, Role } from '../rpc/identity.ts';
import { readState, writeState, type AuthorityState } from './authority-state.ts';
import type { AuthorityStore, IdentityStore } from './identity-store.ts';

/** The part of a Secret that is used. */
interface Secret extends KubeObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly type?: string;
  readonly data?: Readonly<Record<string, string>>;
}

type SecretApi = Pick<KubeApi, 'get' | 'create' | 'update'>;

const AUTHORITY_KEY = 'authority.json';
const LABELS = {
  'app.kubernetes.io/name': 'salvor',
  'app.kubernetes.io/managed-by': 'salvor-certs',
};

/** One Secret, changed only in the version that was read last. */
class KeptSecret {
  readonly name: string;
  readonly #namespace: string;
  readonly #type: string;
  readonly #api: SecretApi;
  #known: Secret | undefined;

  constructor(
    target: { readonly namespace: string; readonly name: string; readonly type: string },
    api: SecretApi,
  ) {
    this.name = target.name;
    this.#namespace = target.namespace;
    this.#type = target.type;
    this.#api = api;
  }

  async read(): Promise<ReadonlyMap<string, Buffer> | undefined> {
    const { name } = this;
    this.#known = await this.#api.get<Secret>('secrets', { namespace: this.#namespace, name });
    if (this.#known === undefined) return undefined;
    const data = Object.entries(this.#known.data ?? {});
    return new Map(data.map(([key, value]) => [key, Buffer.from(value, 'base64')]));
  }

  async write(content: Readonly<Record<string, Buffer>>): Promise<void> {
    const data = Object.fromEntries(
      Object.entries(content).map(([key, value]) => [key, value.toString('base64')]),
    );
    try {
      this.#known = await this.#put(data);
    } catch (error) {
      if (!(error instanceof KubeError) || error.status !== 409) throw error;
      throw new Error(`Cannot write the Secret ${this.name}: it was changed meanwhile, run again`, {
        cause: error,
      });
    }
  }

  async #put(data: Record<string, string>): Promise<Secret> {
    const { name } = this;
    const namespace = this.#namespace;
    if (this.#known !== undefined) {
      const changed = { ...this.#known, data: { ...this.#known.data, ...data } };
      return this.#api.update('secrets', changed, { namespace, name });
    }
    const made = {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name, labels: LABELS },
      type: this.#type,
      data,
    };
    return this.#api.create<Secret>('secrets', made, { namespace });
  }
}

interface SecretTarget {
  /** Empty: the namespace of the service account. */
  readonly namespace: string;
  readonly name: string;
}

/** The authority in a Secret that nodes never see. */
export class SecretAuthority implements AuthorityStore {
  readonly name: string;
  readonly #secret: KeptSecret;

  constructor(target: SecretTarget, dependencies: { api: SecretApi }) {
    this.name = `Secret ${target.name}`;
    this.#secret = new KeptSecret({ ...target, type: 'Opaque' }, dependencies.api);
  }

  async read(): Promise<AuthorityState | undefined> {
    const text = (await this.#secret.read())?.get(AUTHORITY_KEY);
    return text === undefined ? undefined : readState(text.toString());
  }

  async write(state: AuthorityState): Promise<void> {
    await this.#secret.write({ [AUTHORITY_KEY]: Buffer.from(writeState(state)) });
  }
}

/** An identity in a Secret of type kubernetes.io/tls with ca.crt, as cert-manager makes them. */
export class SecretIdentity implements IdentityStore {
  readonly name: string;
  readonly roles: readonly Role[];
  readonly #secret: KeptSecret;

  constructor(target: SecretTarget, roles: readonly Role[], dependencies: { api: SecretApi }) {
    this.name = `Secret ${target.name}`;
    this.roles = roles;
    this.#secret = new KeptSecret({ ...target, type: 'kubernetes.io/tls' }, dependencies.api);
  }

  async read(): Promise<Identity | undefined> {
    const data = await this.#secret.read();
    if (data === undefined) return undefined;
    const part = (name: string): Buffer => data.get(name) ?? Buffer.alloc(0);
    return { ca: part('ca.crt'), certificate: part('tls.crt'), key: part('tls.key') };
  }

  async write({ ca, certificate, key }: Identity): Promise<void> {
    await this.#secret.write({ 'ca.crt': ca, 'tls.crt': certificate, 'tls.key': key });
  }
}
