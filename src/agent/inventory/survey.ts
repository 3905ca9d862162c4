import type { NodeWarning } from '../../rpc/inventory.ts';
import type { StoreCallOptions } from '../store.ts';

/** A name in the store as the store has it, however odd. */
export interface SurveyedImage {
  readonly name: string;
  readonly target: {
    readonly digest: string;
    readonly mediaType: string;
    readonly sizeBytes: number;
  };
  /** When the store last wrote this record, milliseconds since the epoch. */
  readonly recordedAtMs: number;
  /** When the upstream confirmed the name, where the store keeps that; same unit. */
  readonly observedAtMs?: number;
}

/** What a store knows of its content beside the bytes, at one moment. */
export interface StoreSurvey {
  readonly images: readonly SurveyedImage[];
  /** Names of images that containers were made from. */
  readonly usedImages: ReadonlySet<string>;
  /** Digests that garbage collection leaves alone, or that there is no such thing. */
  readonly kept: ReadonlySet<string> | 'everything';
  /** What the store wrote beside a blob, by its digest. */
  readonly labels: ReadonlyMap<string, Readonly<Record<string, string>>>;
  readonly runtimeVersion: string;
  /** What images are unpacked with; empty where that cannot be seen. */
  readonly snapshotter: string;
  readonly warnings: readonly NodeWarning[];
}

/** A store that can be surveyed. */
export interface SurveyedStore {
  /** @throws StoreUnavailableError */
  survey(options?: StoreCallOptions): Promise<StoreSurvey>;
}
