// Guests for tests of the API and the command: Debian's kernel where it is to be had, and small kernels of a few instructions.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { cacheDirectory } from "../../src/host/node/cache.ts";
import { type DebianGuest, debianGuest } from "../../src/host/node/debian-guest.ts";

/** Tests do not download; `npm start` and the system tests do. */
export async function cachedGuest(): Promise<DebianGuest | undefined> {
  if (!existsSync(join(cacheDirectory(), "debian", "cloud", "guest.json"))) return undefined;
  return debianGuest({ flavour: "cloud" });
}

const MULTIBOOT_MAGIC = 0x1badb002;
/** The header gives the addresses, as the file is no ELF. */
const ADDRESSES_GIVEN = 1 << 16;
const LOAD_ADDRESS = 0x100000;

/** A Multiboot kernel of raw 32-bit code: starts in flat protected mode with interrupts off. */
export function multibootKernel(code: readonly number[]): Uint8Array {
  const header = [MULTIBOOT_MAGIC, ADDRESSES_GIVEN, -(MULTIBOOT_MAGIC + ADDRESSES_GIVEN)];
  const length = 32 + code.length;
  const words = [
    ...header,
    LOAD_ADDRESS,
    LOAD_ADDRESS,
    LOAD_ADDRESS + length,
    LOAD_ADDRESS + length,
    LOAD_ADDRESS + 32,
  ];
  const file = new Uint8Array(length);
  const view = new DataView(file.buffer);
  words.forEach((word, n) => {
    view.setUint32(n * 4, word >>> 0, true);
  });
  file.set(code, 32);
  return file;
}

export const le32 = (value: number): number[] => [...new Uint8Array(Uint32Array.of(value).buffer)];
/** MOV DWORD [address], value. */
export const store = (address: number, value: number): number[] => [0xc7, 0x05, ...le32(address), ...le32(value)];
const mov8 = (value: number): number[] => [0xb0, value];
const movDx = (port: number): number[] => [0x66, 0xba, port & 0xff, port >> 8];
const OUT_DX_AL = 0xee;
const IN_AL_DX = 0xec;

/** OUT of a byte to a port. */
export const out = (port: number, value: number): number[] => [...movDx(port), ...mov8(value), OUT_DX_AL];

/** Text to the first serial port. */
export const print = (text: string): number[] => [...text].flatMap((character) => out(0x3f8, character.charCodeAt(0)));

export const HALT = [0xfa, 0xf4];
export const POWER_OFF = [...movDx(0x604), 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4];
export const REBOOT = [...out(0xcf9, 6), 0xf4];
/** An IDT of no entries, and an exception. */
export const TRIPLE_FAULT = [0x31, 0xc0, 0x50, 0x50, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b];
export const SPIN = [0xeb, 0xfe];
/** Reads the line status until there is input, and sends each byte back; a `q` ends it. */
export const ECHO = [
  ...[...movDx(0x3fd), IN_AL_DX, 0xa8, 0x01, 0x74, 0xfb],
  ...[...movDx(0x3f8), IN_AL_DX, OUT_DX_AL, 0x3c, 0x71, 0x75, 0xed],
];
