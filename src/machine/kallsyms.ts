// The symbols of a running Linux kernel, from the tables that it keeps of them itself (Linux, scripts/kallsyms.c and kernel/kallsyms.c): names are
// strings of tokens, and addresses are offsets from a base. The tables are found by their contents, since nothing says where they lie.

import type { Symbols } from "./symbols.ts";

const TOKENS = 256;
/** Names to a marker. */
const MARKED = 256;
/** Bytes of a token at most. */
const TOKEN_MAX = 64;
const SYMBOLS_MAX = 0x80000;
const KERNEL_SPACE = 0xffff800000000000n;

const align8 = (at: number): number => Math.ceil(at / 8) * 8;
const decoder = new TextDecoder("latin1");

/** Tokens of single digits stand for themselves, one behind the other: "0", "1", ... "9", each with a zero behind. */
function isDigits(ram: Uint8Array, at: number): boolean {
  for (let n = 0; n < 10; n++) if (ram[at + 2 * n] !== 0x30 + n || ram[at + 2 * n + 1] !== 0) return false;
  return true;
}

interface TokenTable {
  readonly start: number;
  /** Behind the index. */
  readonly end: number;
  readonly tokens: readonly string[];
}

/** The table of tokens around the digits, with the index behind it that must agree. */
function tokenTable(ram: Uint8Array, view: DataView, digits: number): TokenTable | undefined {
  let second = digits;
  for (let n = 0x30; n > 1; n--) {
    let at = second - 2;
    while (at > digits - 0x10000 && at >= 0 && ram[at] !== 0) at--;
    second = at + 1;
  }
  // What stands before the first token need not end in a zero.
  for (let start = Math.floor((second - 1) / 8) * 8; start > second - TOKEN_MAX && start >= 0; start -= 8) {
    const table = tableAt(ram, view, start);
    if (table !== undefined) return table;
  }
  return undefined;
}

function tableAt(ram: Uint8Array, view: DataView, start: number): TokenTable | undefined {
  const tokens: string[] = [];
  const offsets: number[] = [];
  let at = start;
  for (let n = 0; n < TOKENS; n++) {
    const end = ram.indexOf(0, at);
    if (end < 0 || end - at > TOKEN_MAX) return undefined;
    offsets.push(at - start);
    tokens.push(decoder.decode(ram.slice(at, end)));
    at = end + 1;
  }
  const index = align8(at);
  if (!offsets.every((offset, n) => view.getUint16(index + 2 * n, true) === offset)) return undefined;
  return { start, end: index + 2 * TOKENS, tokens };
}

/** Length of the name at a place (two bytes where it is long, Linux 6.1) and where its tokens begin. */
function nameAt(ram: Uint8Array, at: number): { length: number; tokens: number } {
  const first = ram[at];
  return first < 0x80
    ? { length: first, tokens: at + 1 }
    : { length: (first & 0x7f) | (ram[at + 1] << 7), tokens: at + 2 };
}

interface Names {
  /** Of the number of symbols, in front of the names. */
  readonly start: number;
  readonly count: number;
  readonly names: readonly string[];
}

/** The markers, offsets of every 256th name, that end at a place: where they begin, and how many they are. */
function markersBefore(view: DataView, end: number): { start: number; count: number; last: number } | undefined {
  const last = view.getUint32(end - 4, true);
  let value = last;
  let start = end - 4;
  while (value !== 0) {
    start -= 4;
    const before = start >= 0 ? view.getUint32(start, true) : value;
    const bytes = value - before;
    if (bytes < MARKED * 2 || bytes > MARKED * 64) return undefined;
    value = before;
  }
  const count = (end - start) / 4;
  return count < 2 ? undefined : { start, count, last };
}

/** The names before the markers, which lie before the tokens, since Linux 6.2 with three bytes for each symbol between them. */
function findNames(ram: Uint8Array, view: DataView, { start, tokens }: TokenTable): Names | undefined {
  for (let end = start; end > start - 3 * SYMBOLS_MAX && end > 8; end -= 4) {
    const markers = markersBefore(view, end);
    if (markers === undefined) continue;
    const most = markers.count * MARKED;
    for (let at = markers.start - markers.last; at > markers.start - markers.last - MARKED * 64 && at >= 8; at--) {
      if (at % 8 !== 0) continue;
      const count = view.getUint32(at - 8, true);
      if (count <= most - MARKED || count > most || view.getUint32(at - 4, true) !== 0) continue;
      const names = decodeNames(ram, tokens, at, count, markers.start);
      if (names !== undefined) return { start: at - 8, count, names };
    }
  }
  return undefined;
}

function decodeNames(
  ram: Uint8Array,
  tokens: readonly string[],
  start: number,
  count: number,
  end: number,
): string[] | undefined {
  const names: string[] = [];
  let place = start;
  for (let n = 0; n < count && place < end; n++) {
    const name = nameAt(ram, place);
    let text = "";
    for (let k = 0; k < name.length; k++) text += tokens[ram[name.tokens + k]];
    names.push(text.slice(1));
    place = name.tokens + name.length;
  }
  return names.length === count && align8(place) === end ? names : undefined;
}

/** Addresses from 32-bit offsets: negative ones are from the base downwards (CONFIG_KALLSYMS_ABSOLUTE_PERCPU), others are absolute or from the base on. */
function addresses(view: DataView, offsets: number, count: number, base: bigint): bigint[] {
  const values = Array.from({ length: count }, (_, n) => view.getInt32(offsets + 4 * n, true));
  const perCpu = values.some((value) => value < 0);
  return values.map((value) => {
    if (!perCpu) return base + BigInt(value >>> 0);
    return value < 0 ? base - 1n - BigInt(value) : BigInt(value);
  });
}

/** The symbols of the kernel in some RAM, or undefined where none are found. */
export function kernelSymbols(ram: Uint8Array): Symbols | undefined {
  const view = new DataView(ram.buffer, ram.byteOffset, ram.byteLength);
  for (let at = ram.indexOf(0x30); at >= 0; at = ram.indexOf(0x30, at + 1)) {
    if (!isDigits(ram, at)) continue;
    const table = tokenTable(ram, view, at);
    const found = table === undefined ? undefined : findNames(ram, view, table);
    if (table === undefined || found === undefined) continue;
    const { start, count, names } = found;
    // In front of the names, or since Linux 6.4 behind the tokens.
    const room = align8(count * 4);
    for (const [base, offsets] of [
      [start - 8, start - 8 - room],
      [align8(table.end) + room, align8(table.end)],
    ]) {
      if (offsets < 0 || base + 8 > ram.length) continue;
      const value = view.getBigUint64(base, true);
      if (value < KERNEL_SPACE || (value & 0xfffn) !== 0n) continue;
      return addresses(view, offsets, count, value).map((address, n) => ({ address, name: names[n] }));
    }
  }
  return undefined;
}
