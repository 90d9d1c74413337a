// Registers that the devices' thread keeps in memory shared with the vCPUs (`RegisterBank`).

import { BANK_BYTES, BANK_DWORDS, type RegisterBank } from "../bus.ts";
import { BANK_WORDS, type ControlArea, REGISTER_BANKS, VCPU } from "./control-area.ts";
import { othersHavePosted } from "./posted-writes.ts";

const FOREVER = 2n ** 63n - 1n;

/** The devices' side of a bank. */
export function registerBank(area: ControlArea, bank: number): RegisterBank {
  if (!(bank >= 0 && bank < REGISTER_BANKS)) throw new RangeError(`there is no bank ${bank} of registers`);
  const { words } = area;
  const at = area.registerBank(bank);
  area.holdUntil(at, FOREVER);
  return {
    dwords: new Uint32Array(area.memory, 4 * at, BANK_DWORDS),
    answer: (dword) => void Atomics.or(words, at + BANK_WORDS.ANSWERS + (dword >>> 5), 1 << (dword & 31)),
    holdUntil: (time) => area.holdUntil(at, Number.isFinite(time) ? BigInt(time) : FOREVER),
  };
}

/** What `size` bytes from a register on hold, which is numbered by its bank and place; undefined: to be asked for. `now` gives virtual time. */
export function registerValue(
  area: ControlArea,
  register: number,
  size: number,
  now: () => number,
): number | undefined {
  const { words } = area;
  const at = area.registerBank(Math.floor(register / BANK_BYTES));
  const dword = (register % BANK_BYTES) >>> 2;
  const byte = register & 3;
  if (byte + size > 4 || !(Atomics.load(words, at + BANK_WORDS.ANSWERS + (dword >>> 5)) & (1 << (dword & 31))))
    return undefined;
  const until = area.heldUntil(at);
  const value = (Atomics.load(words, at + dword) >>> (8 * byte)) & (2 ** (8 * size) - 1);
  // Looked at again: it is another, or past, where the registers changed meanwhile.
  const holds = area.heldUntil(at) === until && (until === FOREVER || BigInt(now()) < until);
  return holds ? value >>> 0 : undefined;
}

/** Whether the devices have to do first what a vCPU told them without waiting: writes of others than `self`, ends of interrupts of any. */
export function devicesAreBehind(area: ControlArea, self: number): boolean {
  for (let id = 0; id < area.vcpus; id++) if (Atomics.load(area.words, area.block(id) + VCPU.NEWS) !== 0) return true;
  return othersHavePosted(area, self);
}
