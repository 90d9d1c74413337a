// Devices of 8-bit width on a wider bus: a 16- or 32-bit access becomes consecutive byte cycles, lowest port first
// (ISA bus; the bridge's byte steering). A byte that no register answers reads as FFh and is dropped when written.

import type { AccessSize } from "../bus.ts";

export function readBytes(readByte: (port: number) => number, port: number, size: AccessSize): number {
  let value = readByte(port);
  for (let i = 1; i < size; i++) value |= readByte(port + i) << (8 * i);
  return value >>> 0;
}

export function writeBytes(
  writeByte: (port: number, value: number) => void,
  port: number,
  size: AccessSize,
  value: number,
): void {
  for (let i = 0; i < size; i++) writeByte(port + i, (value >>> (8 * i)) & 0xff);
}
