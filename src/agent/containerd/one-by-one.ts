import { InterceptingCall, type Interceptor } from '@grpc/grpc-js';

/**
 * Lets a server stream run at most one message ahead of its reader. grpc-js alone fetches sixteen,
 * which at 1 MiB each is too much for every slow reader of a blob.
 */
export class OneByOne {
  #unread = 0;
  #held: (() => void) | undefined;

  /** Belongs into the options of the one call that this object watches. */
  readonly interceptor: Interceptor = (options, nextCall) => {
    const call = new InterceptingCall(nextCall(options));
    const startRead = call.startRead.bind(call);
    call.startRead = () => {
      if (this.#unread > 0) {
        this.#held = startRead;
        return;
      }
      this.#unread += 1;
      startRead();
    };
    return call;
  };

  /** The reader has taken a message, or is waiting for the first. */
  taken(): void {
    this.#unread = Math.max(0, this.#unread - 1);
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    this.#unread += 1;
    held();
  }
}
