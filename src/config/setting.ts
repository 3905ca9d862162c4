import type { Static, TArray, TBoolean, TEnum, TInteger, TObject, TRecord, TString } from 'typebox';

import type { TextFormat } from './text-format.ts';

// These builders make TypeBox schemas (plain JSON Schema with TypeBox's kind mark) without
// loading the library: at run time it would cost each process 14 MB of resident memory and 80 ms,
// and only its types are needed.

/** What an integer counts. */
export type Unit = 'milliseconds' | 'bytes' | 'bytes per second' | 'items';

/** Names a default that is computed when the configuration is loaded, see `load.ts`. */
export type ComputedDefault = 'hostName' | 'dataHome' | 'agentStore' | 'hostsFile';

interface Described {
  readonly description: string;
  /** A changed value is taken over by a running process; all others need a restart. */
  readonly reloadable?: true;
}

interface IntegerOptions extends Described {
  readonly default: number;
  readonly minimum: number;
  readonly maximum: number;
}

/** @internal the parts that the loader and the documentation read */
export interface IntegerSetting extends TInteger, IntegerOptions {
  readonly unit: Unit;
}

interface TextOptions extends Described {
  readonly default: string;
  readonly format?: TextFormat;
  readonly computedDefault?: ComputedDefault;
  /** Must not be shown: neither in messages nor by `salvor config`. */
  readonly secret?: true;
  /** 1 where the text must be given: it has no default then. */
  readonly minLength?: number;
  readonly maxLength?: number;
}

/** A text; the empty text always means "not given", so formats are not applied to it. */
export interface TextSetting extends TString, TextOptions {
  readonly maxLength: number;
}

export interface FlagSetting extends TBoolean, Described {
  readonly default: boolean;
}

export interface ChoiceSetting<Values extends string[] = string[]>
  extends TEnum<Values>, Described {
  readonly default: string;
}

export interface ListSetting<Item extends ValueSetting = ValueSetting>
  extends TArray<Item>, Described {
  readonly default: readonly unknown[];
  readonly maxItems: number;
}

export interface MapSetting<Value extends ValueSetting = ValueSetting>
  extends TRecord<'^.*$', Value>, Described {
  readonly default: Readonly<Record<string, never>>;
  readonly keyFormat: TextFormat;
  readonly maxProperties: number;
}

export interface SectionSetting<Properties extends SettingProperties = SettingProperties>
  extends TObject<Properties>, Described {}

export type SettingProperties = Record<string, AnySetting>;

/** What may stand in a list or a map. */
export type ValueSetting = TextSetting | SectionSetting;

export type AnySetting =
  | IntegerSetting
  | TextSetting
  | FlagSetting
  | ChoiceSetting
  | ListSetting
  | MapSetting
  | SectionSetting;

/** The type that a schema describes, closed to change all the way down. */
export type SettingValue<Schema extends AnySetting> = DeepReadonly<Static<Schema>>;

type DeepReadonly<T> = T extends readonly (infer Item)[]
  ? readonly DeepReadonly<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> }
    : T;

function schema<Result extends AnySetting>(kind: Result['~kind'], fields: object): Result {
  const marked = Object.defineProperty({ ...fields }, '~kind', { value: kind });
  return marked as Result;
}

function integer(unit: Unit, options: IntegerOptions): IntegerSetting {
  return schema<IntegerSetting>('Integer', { type: 'integer', unit, ...options });
}

const dayMs = 86_400_000;

/** A time in milliseconds, between 1 ms and a day unless said otherwise. */
export function milliseconds(
  defaultMs: number,
  description: string,
  bounds: { minimum?: number; maximum?: number; reloadable?: true } = {},
): IntegerSetting {
  return integer('milliseconds', {
    default: defaultMs,
    minimum: 1,
    maximum: dayMs,
    description,
    ...bounds,
  });
}

/** A size in bytes, up to 1 PiB. */
export function bytes(
  defaultBytes: number,
  description: string,
  bounds: { minimum: number; maximum?: number; reloadable?: true },
): IntegerSetting {
  return integer('bytes', { default: defaultBytes, maximum: 2 ** 50, description, ...bounds });
}

/** A rate in bytes per second, up to 1 TiB. */
export function bytesPerSecond(defaultRate: number, description: string): IntegerSetting {
  return integer('bytes per second', {
    default: defaultRate,
    minimum: 1024,
    maximum: 2 ** 40,
    description,
  });
}

/** How many of something. */
export function count(
  defaultCount: number,
  description: string,
  bounds: { minimum?: number; maximum: number; reloadable?: true },
): IntegerSetting {
  return integer('items', { default: defaultCount, minimum: 1, description, ...bounds });
}

/** A text of at most 4096 characters. */
export function text(options: TextOptions): TextSetting {
  return schema<TextSetting>('String', { type: 'string', maxLength: 4096, ...options });
}

/** Yes or no. */
export function flag(defaultValue: boolean, description: string): FlagSetting {
  return schema<FlagSetting>('Boolean', { type: 'boolean', default: defaultValue, description });
}

/** One of several words, the first of which is the default. */
export function choice<const Values extends [string, ...string[]]>(
  values: Values,
  description: string,
  options: Pick<Described, 'reloadable'> = {},
): ChoiceSetting<Mutable<Values>> {
  return schema<ChoiceSetting>('Enum', {
    enum: values,
    default: values[0],
    description,
    ...options,
  }) as ChoiceSetting<Mutable<Values>>;
}

type Mutable<Values extends readonly string[]> = [...Values];

/** A list of at most 4096 items. */
export function list<Item extends ValueSetting>(
  items: Item,
  options: Described & { readonly default: readonly string[] },
): ListSetting<Item> {
  return schema<ListSetting>('Array', {
    type: 'array',
    items,
    maxItems: 4096,
    ...options,
  }) as ListSetting<Item>;
}

/** A map of at most 1024 entries, empty by default. */
export function map<Value extends ValueSetting>(
  values: Value,
  options: Described & { readonly keyFormat: TextFormat },
): MapSetting<Value> {
  return schema<MapSetting>('Record', {
    type: 'object',
    patternProperties: { '^.*$': values },
    maxProperties: 1024,
    default: {},
    ...options,
  }) as MapSetting<Value>;
}

/** Settings that belong together. Every key is present after loading. */
export function section<Properties extends SettingProperties>(
  description: string,
  properties: Properties,
): SectionSetting<Properties> {
  return schema<SectionSetting>('Object', {
    type: 'object',
    properties,
    required: Object.keys(properties),
    additionalProperties: false,
    description,
  }) as unknown as SectionSetting<Properties>;
}
