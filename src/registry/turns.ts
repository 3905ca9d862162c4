import type { Digest } from '../oci/digest.ts';

/** From here on the process is what bodies wait for, as a share of the time that it has. */
const BUSY_SHARE = 0.85;
const SAMPLE_MS = 50;
/** A body that moves this much in a window is at full speed. */
const FAST_BYTES = 1024 * 1024;
const WINDOW_MS = 100;
/** One that has moved nothing for longer waits for something else than this process. */
const MOVING_MS = 20;
/** The longest that a body stands back before it moves its next chunk. */
const STAND_BACK_MS = 50;

/** One body's place in the order. */
export interface Turn {
  /** So many bytes have passed. */
  note(bytes: number): void;
  /** What to wait for before the next chunk is fetched; undefined: nothing. */
  standBack(): Promise<void> | undefined;
  /** The body has ended. To be called once. */
  leave(): void;
}

/** Where a blob stands in the image that it is a part of. */
export interface PartPlace {
  readonly image: Digest;
  readonly position: number;
}

/** How much of the time since the last call the process was at work, 0 to 1. */
export type MeasureLoad = () => number;

/**
 * Lets layers end in the order in which they are needed, while this process is what holds all of
 * them up.
 *
 * containerd asks for the layers of an image at once and unpacks them in the manifest's order, so
 * that it can do nothing as long as all of them grow alike. A body stands back only while one that
 * is needed before it moves at full speed, for at most 50 ms a chunk, and only while the process is
 * busy: where the network or the client is the limit, all of them run. Images take turns as they
 * came.
 */
export class Turns {
  readonly #measureLoad: MeasureLoad;
  readonly #placeOf: (blob: Digest) => PartPlace | undefined;
  readonly #bodies = new Set<Body>();
  readonly #standing = new Set<() => void>();
  #entered = 0;
  #isBusy = false;
  #sampledAtMs = 0;

  /** @param dependencies.placeOf undefined for a blob of an image that is not known */
  constructor(dependencies: {
    measureLoad: MeasureLoad;
    placeOf: (blob: Digest) => PartPlace | undefined;
  }) {
    this.#measureLoad = dependencies.measureLoad;
    this.#placeOf = dependencies.placeOf;
  }

  /** The body of a blob begins. */
  enter(blob: Digest): Turn {
    const { image, position } = this.#placeOf(blob) ?? { image: blob, position: 0 };
    this.#entered += 1;
    let imageEntered = this.#entered;
    for (const other of this.#bodies) if (other.image === image) imageEntered = other.imageEntered;
    const body = new Body({ image, imageEntered, position, entered: this.#entered });
    this.#bodies.add(body);
    return {
      note: (bytes) => body.note(bytes),
      standBack: () => this.#standBack(body),
      leave: () => {
        this.#bodies.delete(body);
        for (const goOn of this.#standing) goOn();
      },
    };
  }

  #standBack(body: Body): Promise<void> | undefined {
    if (!this.#mustStandBack(body) || !this.#checkBusy()) return undefined;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const goOn = (): void => {
      clearTimeout(timer);
      this.#standing.delete(goOn);
      resolve(undefined);
    };
    const timer = setTimeout(goOn, STAND_BACK_MS);
    this.#standing.add(goOn);
    return promise;
  }

  #mustStandBack(body: Body): boolean {
    const nowMs = performance.now();
    for (const other of this.#bodies) {
      if (other !== body && other.isFast(nowMs) && other.comesBefore(body)) return true;
    }
    return false;
  }

  #checkBusy(): boolean {
    const nowMs = performance.now();
    if (nowMs - this.#sampledAtMs >= SAMPLE_MS) {
      this.#sampledAtMs = nowMs;
      this.#isBusy = this.#measureLoad() >= BUSY_SHARE;
    }
    return this.#isBusy;
  }
}

interface BodyOrder extends PartPlace {
  /** When the first of its image's bodies that are under way began, counted in bodies. */
  readonly imageEntered: number;
  readonly entered: number;
}

class Body {
  readonly image: Digest;
  readonly imageEntered: number;
  readonly #order: BodyOrder;
  #windowStartMs = performance.now();
  #windowBytes = 0;
  #isFast = false;
  #movedAtMs = 0;

  constructor(order: BodyOrder) {
    this.#order = order;
    this.image = order.image;
    this.imageEntered = order.imageEntered;
  }

  comesBefore(other: Body): boolean {
    const [own, others] = [this.#order, other.#order];
    return (
      (own.imageEntered - others.imageEntered ||
        own.position - others.position ||
        own.entered - others.entered) < 0
    );
  }

  note(bytes: number): void {
    const nowMs = performance.now();
    if (nowMs - this.#windowStartMs >= WINDOW_MS) {
      this.#isFast = this.#windowBytes >= FAST_BYTES;
      this.#windowStartMs = nowMs;
      this.#windowBytes = 0;
    }
    this.#windowBytes += bytes;
    this.#movedAtMs = nowMs;
  }

  isFast(nowMs: number): boolean {
    return this.#isFast && nowMs - this.#movedAtMs < MOVING_MS;
  }
}
