import { connectivityState, type Client } from '@grpc/grpc-js';

/** How long one wait goes on, milliseconds: longer than the pause between two tries to connect. */
const WINDOW_MS = 250;

/** Whether calls can be made on a channel; all who want to know at the same time share the wait. */
export class Readiness {
  readonly #client: Pick<Client, 'waitForReady' | 'getChannel'>;
  #wait: Promise<boolean> | undefined;

  constructor(client: Pick<Client, 'waitForReady' | 'getChannel'>) {
    this.#client = client;
  }

  /** Whether a call would fail at once, since the last try to connect has failed. */
  get isFailing(): boolean {
    const state = this.#client.getChannel().getConnectivityState(false);
    return state === connectivityState.TRANSIENT_FAILURE;
  }

  /**
   * Has the channel connect, if need be.
   *
   * @returns whether it is connected: as soon as it is, or after a moment
   */
  async wait(): Promise<boolean> {
    this.#wait ??= new Promise<boolean>((resolve) => {
      // There is no way to stop waiting, so nobody must have to wait for the end of it for long.
      this.#client.waitForReady(Date.now() + WINDOW_MS, (error) => resolve(error === undefined));
    }).finally(() => {
      this.#wait = undefined;
    });
    return this.#wait;
  }
}
