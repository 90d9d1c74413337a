// State schemas: what a device or vCPU saves, as a kind, a version and named, typed fields. A snapshot is a tree of such sections.
// A schema also names the fields that are derived or wiring, so that `uncoveredFields` finds state which somebody forgot.

/** The type of a field. `u64` is a bigint; every other integer is a number; `bytes` a Uint8Array of any length; `words` a Uint32Array. */
export type FieldType =
  | "u8"
  | "u16"
  | "u32"
  | "u64"
  | "i32"
  | "time"
  | "bool"
  | "string"
  | "bytes"
  | "words"
  | { readonly array: FieldType; readonly length?: number }
  | { readonly struct: Fields }
  | { readonly section: Schema };

export type Fields = { readonly [name: string]: FieldType };

export interface Schema {
  /** Name of the section's kind, unique in the project, for instance `i8254`. */
  readonly kind: string;
  /** Raised by one whenever fields change; older versions are read through `upgrade`. */
  readonly version: number;
  readonly fields: Fields;
  /** Fields of the object that are not state: wiring to other parts, caches and what is computed from the rest. */
  readonly derived: readonly string[];
  /** Turns the fields of an older version into those of the present one. */
  readonly upgrade?: (version: number, fields: { [name: string]: StateValue }) => { [name: string]: StateValue };
}

export type StateValue =
  | number
  | bigint
  | boolean
  | string
  | Uint8Array
  | Uint32Array
  | StateValue[]
  | { [name: string]: StateValue }
  | Section;

export interface Section {
  readonly kind: string;
  readonly version: number;
  readonly fields: { [name: string]: StateValue };
}

/** An object whose state is exactly the fields that its schema names. */
export interface Stateful {
  readonly schema: Schema;
  /** Recomputes derived fields and re-arms timers after `restoreState`; must not make an edge on any interrupt pin. */
  afterRestore?(): void;
}

/** A snapshot that cannot be read; the message is one line for the user. */
export class StateError extends Error {}

const INTEGER_LIMIT: { [type: string]: number } = { u8: 0xff, u16: 0xffff, u32: 0xffffffff };

function copyOut(value: unknown, type: FieldType, path: string): StateValue {
  if (typeof type === "object") {
    if ("section" in type) return saveState(value as Stateful);
    if ("array" in type)
      return Array.from(value as Iterable<unknown>, (v, i) => copyOut(v, type.array, `${path}[${i}]`));
    const out: { [name: string]: StateValue } = {};
    for (const [name, fieldType] of Object.entries(type.struct)) {
      out[name] = copyOut((value as { [name: string]: unknown })[name], fieldType, `${path}.${name}`);
    }
    return out;
  }
  if (type === "bytes") return (value as Uint8Array).slice();
  if (type === "words") return (value as Uint32Array).slice();
  checkScalar(value, type, path);
  return value as StateValue;
}

function checkScalar(value: unknown, type: string, path: string): void {
  let good: boolean;
  if (type === "u64") good = typeof value === "bigint" && value >= 0n && value < 1n << 64n;
  else if (type === "time") good = typeof value === "number" && !Number.isNaN(value);
  else if (type === "bool") good = typeof value === "boolean";
  else if (type === "string") good = typeof value === "string";
  else if (type === "i32") good = typeof value === "number" && (value | 0) === value;
  else good = typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= INTEGER_LIMIT[type];
  if (!good) throw new StateError(`field ${path} holds ${String(value)}, which is no ${type}`);
}

/** Saves what the schema of `object` names. `time` fields are absolute virtual nanoseconds and may be Infinity. */
export function saveState(object: Stateful): Section {
  const { kind, version, fields } = object.schema;
  return { kind, version, fields: copyOut(object, { struct: fields }, kind) as { [name: string]: StateValue } };
}

function copyIn(
  target: { [name: string]: unknown },
  name: string,
  value: StateValue | undefined,
  type: FieldType,
  path: string,
): void {
  if (value === undefined) throw new StateError(`field ${path} is missing`);
  if (typeof type === "object") {
    if ("section" in type) {
      restoreState(target[name] as Stateful, value as Section);
      return;
    }
    if ("array" in type) {
      if (!Array.isArray(value)) throw new StateError(`field ${path} is no list`);
      const current = target[name] as unknown[] | Uint8Array | Uint16Array | Uint32Array;
      const fixed = type.length ?? (ArrayBuffer.isView(current) ? current.length : undefined);
      if (fixed !== undefined && value.length !== fixed) {
        throw new StateError(`field ${path} has ${value.length} entries where ${fixed} are needed`);
      }
      if (Array.isArray(current)) {
        const struct = typeof type.array === "object";
        if (!struct) current.length = value.length;
        else if (current.length !== value.length) {
          if (!("struct" in (type.array as object))) {
            throw new StateError(`field ${path} has ${value.length} entries where ${current.length} are needed`);
          }
          current.length = Math.min(current.length, value.length);
          while (current.length < value.length) current.push({});
        }
      }
      const items = current as unknown as { [name: string]: unknown };
      value.forEach((v, i) => {
        copyIn(items, String(i), v, type.array, `${path}[${i}]`);
      });
      return;
    }
    target[name] ??= {};
    const inner = target[name] as { [name: string]: unknown };
    for (const [field, fieldType] of Object.entries(type.struct)) {
      copyIn(inner, field, (value as { [name: string]: StateValue })[field], fieldType, `${path}.${field}`);
    }
    return;
  }
  if (type === "bytes" || type === "words") {
    const view = type === "bytes" ? Uint8Array : Uint32Array;
    if (!(value instanceof view)) throw new StateError(`field ${path} holds no ${type}`);
    const current = target[name];
    if (current instanceof view && current.length === value.length) current.set(value);
    else target[name] = value.slice();
    return;
  }
  checkScalar(value, type, path);
  target[name] = value;
}

/** Restores `object` from a section of the same kind and of this or an older version; everything offered must be consumed. */
export function restoreState(object: Stateful, section: Section): void {
  const { kind, version, fields, upgrade } = object.schema;
  if (section.kind !== kind)
    throw new StateError(`a section of kind ${section.kind} was found where ${kind} is needed`);
  if (section.version > version) {
    throw new StateError(
      `section ${kind} has version ${section.version}, but this program knows versions up to ${version}`,
    );
  }
  let offered = section.fields;
  if (section.version < version) {
    if (upgrade === undefined)
      throw new StateError(`section ${kind} has version ${section.version}, which is no longer read`);
    offered = upgrade(section.version, offered);
  }
  for (const name of Object.keys(offered)) {
    if (!(name in fields)) throw new StateError(`section ${kind} has a field ${name} that is not known`);
  }
  const target = object as unknown as { [name: string]: unknown };
  for (const [name, type] of Object.entries(fields)) copyIn(target, name, offered[name], type, `${kind}.${name}`);
  object.afterRestore?.();
}

/** The fields of `object` that its schema neither saves nor declares derived: each is forgotten state. Functions are not state. */
export function uncoveredFields(object: Stateful): string[] {
  const { fields, derived } = object.schema;
  return Object.entries(object)
    .filter(
      ([name, value]) =>
        typeof value !== "function" && name !== "schema" && !(name in fields) && !derived.includes(name),
    )
    .map(([name]) => name);
}
