// An encoder for the ACPI Machine Language: enough of it for a machine without ACPI firmware code of its own.
// ACPI 6.4, chapter 20 (grammar and opcodes). Every function returns the encoded fragment; the brands keep a fragment out of places
// where the grammar does not allow it.

import { RecordWriter } from "./record.ts";

/** An encoded fragment. */
export interface Aml {
  readonly bytes: Uint8Array;
}

/** May stand in a TermList: a declaration or a statement (20.2.5). */
export interface Term extends Aml {
  readonly term: true;
}

/** May stand where a value is needed (TermArg). */
export interface Operand extends Aml {
  readonly operand: true;
}

/** A constant (DataRefObject). */
export interface Data extends Operand {
  readonly data: true;
}

/** May be stored into (SuperName). */
export interface Target extends Operand {
  readonly target: true;
}

/** Computes a value and may also stand alone as a statement. */
export type Expression = Operand & Term;

const OP = {
  Zero: 0x00,
  One: 0x01,
  Name: 0x08,
  BytePrefix: 0x0a,
  WordPrefix: 0x0b,
  DWordPrefix: 0x0c,
  StringPrefix: 0x0d,
  QWordPrefix: 0x0e,
  Scope: 0x10,
  Buffer: 0x11,
  Package: 0x12,
  Method: 0x14,
  DualNamePrefix: 0x2e,
  MultiNamePrefix: 0x2f,
  Local0: 0x60,
  Arg0: 0x68,
  Store: 0x70,
  And: 0x7b,
  Or: 0x7d,
  CreateDWordField: 0x8a,
  LNot: 0x92,
  LEqual: 0x93,
  If: 0xa0,
  Else: 0xa1,
  Return: 0xa4,
} as const;
const EXT_PREFIX = 0x5b;
const EXT_DEVICE = 0x82;

function join(...parts: (Aml | Uint8Array | number)[]): Uint8Array {
  const out = new RecordWriter();
  for (const part of parts) {
    if (typeof part === "number") out.u8(part);
    else out.bytes("bytes" in part && !(part instanceof Uint8Array) ? part.bytes : (part as Uint8Array));
  }
  return out.finish();
}

const term = (bytes: Uint8Array): Term => ({ bytes, term: true });
const data = (bytes: Uint8Array): Data => ({ bytes, operand: true, data: true });
const target = (bytes: Uint8Array): Target => ({ bytes, operand: true, target: true });
const expression = (bytes: Uint8Array): Expression => ({ bytes, operand: true, term: true });

/** PkgLength counts itself; one byte up to 63, else a lead byte with the low four bits and up to three more (20.2.4). */
function withPkgLength(...parts: (Aml | Uint8Array | number)[]): Uint8Array {
  const body = join(...parts);
  if (body.length + 1 < 1 << 6) return join(body.length + 1, body);
  for (let extra = 1; extra <= 3; extra++) {
    const total = body.length + 1 + extra;
    if (total >= 1 << (4 + 8 * extra)) continue;
    const out = new RecordWriter().u8((extra << 6) | (total & 0xf));
    for (let i = 0; i < extra; i++) out.u8((total >>> (4 + 8 * i)) & 0xff);
    return out.bytes(body).finish();
  }
  throw new RangeError(`an AML package of ${body.length} bytes is too long`);
}

function nameSegment(segment: string): Uint8Array {
  if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment)) throw new RangeError(`"${segment}" is no ACPI name`);
  return new RecordWriter().text(segment, 4, 0x5f).finish();
}

/** A path such as `\_SB.PCI0`, `^FOO` or `_HID` (20.2.2). */
function nameString(path: string): Uint8Array {
  const prefix = /^(\\|\^*)/.exec(path)?.[0] ?? "";
  const rest = path.slice(prefix.length);
  const segments = rest === "" ? [] : rest.split(".").map(nameSegment);
  const out = new RecordWriter().text(prefix);
  if (segments.length === 0) out.u8(0);
  else if (segments.length === 2) out.u8(OP.DualNamePrefix);
  else if (segments.length > 2) out.u8(OP.MultiNamePrefix, segments.length);
  for (const segment of segments) out.bytes(segment);
  return out.finish();
}

export function integer(value: number | bigint): Data {
  const wide = BigInt(value);
  const out = new RecordWriter();
  if (wide === 0n) out.u8(OP.Zero);
  else if (wide === 1n) out.u8(OP.One);
  else if (wide <= 0xffn) out.u8(OP.BytePrefix, Number(wide));
  else if (wide <= 0xffffn) out.u8(OP.WordPrefix).u16(Number(wide));
  else if (wide <= 0xffffffffn) out.u8(OP.DWordPrefix).u32(Number(wide));
  else out.u8(OP.QWordPrefix).u64(wide);
  return data(out.finish());
}

export function string(text: string): Data {
  if (!/^[ -~]*$/.test(text)) throw new RangeError("an AML string is printable ASCII");
  return data(new RecordWriter().u8(OP.StringPrefix).text(text).u8(0).finish());
}

export function buffer(bytes: Uint8Array): Data {
  return data(join(OP.Buffer, withPkgLength(integer(bytes.length), bytes)));
}

export function pack(...elements: Data[]): Data {
  if (elements.length > 255) throw new RangeError("an AML package has at most 255 elements");
  return data(join(OP.Package, withPkgLength(elements.length, ...elements)));
}

/** A plug-and-play id such as `PNP0A08`, compressed to 32 bits (19.6.36). */
export function eisaId(id: string): Data {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id)) throw new RangeError(`"${id}" is no EISA id`);
  const letter = (i: number) => id.charCodeAt(i) - 0x40;
  const vendor = (letter(0) << 10) | (letter(1) << 5) | letter(2);
  const product = Number.parseInt(id.slice(3), 16);
  // The first byte of the text is the lowest of the integer.
  const swapped = Uint8Array.of(vendor >> 8, vendor & 0xff, product >> 8, product & 0xff);
  return integer(new DataView(swapped.buffer).getUint32(0, true));
}

/** A UUID as the 16 bytes that `ToUUID` gives: the first three groups little-endian (19.6.142). */
export function uuid(text: string): Data {
  const hex = text.replaceAll("-", "");
  if (!/^[0-9a-f]{32}$/.test(hex)) throw new RangeError(`"${text}" is no UUID`);
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return buffer(Uint8Array.from(order, (i) => Number.parseInt(hex.slice(i * 2, i * 2 + 2), 16)));
}

export const reference = (path: string): Target => target(nameString(path));
export const arg = (index: 0 | 1 | 2 | 3 | 4 | 5 | 6): Target => target(Uint8Array.of(OP.Arg0 + index));
export const local = (index: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7): Target => target(Uint8Array.of(OP.Local0 + index));

export const name = (path: string, value: Data): Term => term(join(OP.Name, nameString(path), value));
export const scope = (path: string, ...body: Term[]): Term =>
  term(join(OP.Scope, withPkgLength(nameString(path), ...body)));
export const device = (path: string, ...body: Term[]): Term =>
  term(join(EXT_PREFIX, EXT_DEVICE, withPkgLength(nameString(path), ...body)));

/** A method; `argCount` in the low three bits of MethodFlags, bit 3 where only one thread may run it (20.2.5.2). */
export function method(path: string, argCount: number, serialized: boolean, ...body: Term[]): Term {
  return term(join(OP.Method, withPkgLength(nameString(path), argCount | (serialized ? 8 : 0), ...body)));
}

export const store = (value: Operand, into: Target): Expression => expression(join(OP.Store, value, into));
export const and = (a: Operand, b: Operand, into: Target): Expression => expression(join(OP.And, a, b, into));
export const or = (a: Operand, b: Operand, into: Target): Expression => expression(join(OP.Or, a, b, into));
export const equal = (a: Operand, b: Operand): Operand => expression(join(OP.LEqual, a, b));
export const notEqual = (a: Operand, b: Operand): Operand => expression(join(OP.LNot, OP.LEqual, a, b));
export const returns = (value: Operand): Term => term(join(OP.Return, value));
export const createDWordField = (source: Operand, byteIndex: Operand, field: string): Term =>
  term(join(OP.CreateDWordField, source, byteIndex, nameString(field)));

export function ifElse(condition: Operand, then: Term[], otherwise: Term[] = []): Term {
  const first = join(OP.If, withPkgLength(condition, ...then));
  return term(otherwise.length === 0 ? first : join(first, OP.Else, withPkgLength(...otherwise)));
}
