// Profiles of guest functions, and where their names come from.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { kernelSymbols } from "../../src/machine/kallsyms.ts";
import { Profile } from "../../src/machine/profile.ts";
import { parseSymbols, SymbolTable } from "../../src/machine/symbols.ts";
import { assemble, GUEST_NAMES, SKIP } from "../guests/assemble.ts";

const encoder = new TextEncoder();

test("samples are counted by the function that they lie in", () => {
  const symbols = parseSymbols(encoder.encode("ffffffff81000040 T second\n1000 D data\nffffffff81000000 t first\n"));
  const profile = new Profile();
  for (const rip of [0x00n, 0x10n, 0x40n, 0x3fn]) profile.sample(0xffffffff81000000n + rip);
  profile.sample(0x401234n);
  assert.deepEqual(profile.report(symbols), [
    "5 samples, 2 symbols",
    " 60.00 %  first",
    " 20.00 %  second",
    " 20.00 %  page 401000",
  ]);
});

test("the symbol table of an ELF kernel", { skip: SKIP }, () => {
  const bytes = new Uint8Array(readFileSync(assemble(GUEST_NAMES[0])));
  const symbols = parseSymbols(bytes);
  assert.ok(symbols.length > 3);
  const [{ address }] = symbols.toSorted((a, b) => (a.address > b.address ? -1 : 1));
  const found = new SymbolTable(symbols).find(address + 1n);
  assert.ok(symbols.some((symbol) => symbol.address === address && symbol.name === found));
  for (const length of [64, 100, bytes.length >> 1]) parseSymbols(bytes.subarray(0, length));
});

/** Linux's tables as scripts/kallsyms.c lays them out, somewhere in RAM. `seqs`: with the three bytes a symbol of Linux 6.2. */
function tables(names: readonly string[], base: bigint, seqs: boolean): Uint8Array {
  const tokens = Array.from({ length: 256 }, (_, n) =>
    n === 1 ? "sys_" : n > 0x20 && n < 0x7f ? String.fromCharCode(n) : `<${n}>`,
  );
  const parts: number[] = [];
  const align = (): void => {
    while (parts.length % 8 !== 0) parts.push(0);
  };
  const word = (value: number, bytes = 4): void => {
    for (let n = 0; n < bytes; n++) parts.push(Math.floor(value / 2 ** (8 * n)) & 0xff);
  };
  for (let n = 0; n < names.length; n++) word(-1 - n * 16);
  align();
  word(Number(base & 0xffffffffn));
  word(Number(base >> 32n));
  word(names.length);
  align();
  const start = parts.length;
  const markers: number[] = [];
  names.forEach((name, n) => {
    if (n % 256 === 0) markers.push(parts.length - start);
    const text = encoder.encode(`T${name}`);
    const coded = name.startsWith("sys_") ? [text[0], 1, ...text.subarray(5)] : [...text];
    if (coded.length < 0x80) parts.push(coded.length);
    else parts.push((coded.length & 0x7f) | 0x80, coded.length >> 7);
    parts.push(...coded);
  });
  align();
  for (const marker of markers) word(marker);
  align();
  if (seqs) for (let n = 0; n < names.length; n++) parts.push(n >> 16, (n >> 8) & 0xff, n & 0xff);
  align();
  const offsets: number[] = [];
  const first = parts.length;
  for (const token of tokens) {
    offsets.push(parts.length - first);
    parts.push(...encoder.encode(token), 0);
  }
  align();
  for (const offset of offsets) word(offset, 2);
  const ram = new Uint8Array(1 << 20).fill(0x30, 0x100, 0x200);
  ram.set(parts, 0x8000);
  return ram;
}

test("the names that a Linux kernel keeps of itself", () => {
  const base = 0xffffffff9ce00000n;
  const names = Array.from({ length: 1000 }, (_, n) =>
    n === 500 ? "x".repeat(200) : n % 3 === 0 ? `sys_${n}` : `f${n}`,
  );
  for (const seqs of [false, true]) {
    const found = kernelSymbols(tables(names, base, seqs));
    assert.equal(found?.length, 1000);
    assert.deepEqual(
      found,
      names.map((name, n) => ({ name, address: base + BigInt(n * 16) })),
    );
  }
  assert.equal(kernelSymbols(new Uint8Array(1 << 16)), undefined);
});
