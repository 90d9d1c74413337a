// Calls to a vCPU's thread: the machine's thread writes what it wants with an argument, orders the vCPU to look, and waits for the result.
// Argument and result are text in the vCPU's transfer area (values as `encodeValue` writes them).

import type { StateValue } from "../state.ts";
import { VCPU } from "./control-area.ts";
import type { VcpuLink } from "./vcpu-link.ts";

/** What may be asked; never 0. */
export const CALL = { RESET: 1, BOOT: 2, STATISTICS: 3, SAVE: 4, RESTORE: 5, CONTROL: 6 } as const;

const KIND = "\u0000kind";
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A value as JSON, with the kinds that JSON has not. */
export function encodeValue(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) => {
    if (typeof inner === "bigint") return { [KIND]: "bigint", value: inner.toString(16) };
    if (typeof inner === "number" && !Number.isFinite(inner)) return { [KIND]: "number", value: String(inner) };
    if (inner instanceof Uint8Array) return { [KIND]: "bytes", value: Array.from(inner) };
    if (inner instanceof Uint32Array) return { [KIND]: "words", value: Array.from(inner) };
    return inner;
  });
}

export function decodeValue(text: string): unknown {
  return JSON.parse(text, (_key, inner: unknown) => {
    if (typeof inner !== "object" || inner === null || !(KIND in inner)) return inner;
    const { [KIND]: kind, value } = inner as { [KIND]: string; value: StateValue };
    switch (kind) {
      case "bigint":
        return BigInt(`0x${value as string}`);
      case "number":
        return Number(value);
      case "bytes":
        return Uint8Array.from(value as number[]);
      default:
        return Uint32Array.from(value as number[]);
    }
  });
}

function put(link: VcpuLink, value: unknown): void {
  const bytes = encoder.encode(encodeValue(value ?? null));
  const area = link.area.transfer(link.id);
  if (bytes.length > area.length) throw new RangeError(`${bytes.length} bytes do not fit into the transfer area`);
  area.set(bytes);
  link.store(VCPU.CALL_LENGTH, bytes.length);
}

function get(link: VcpuLink): unknown {
  // A copy, since text is not decoded from shared memory everywhere.
  return decodeValue(decoder.decode(link.area.transfer(link.id).slice(0, link.load(VCPU.CALL_LENGTH))));
}

/** The caller's side: starts a call. */
export function startCall(link: VcpuLink, call: number, argument?: unknown): void {
  put(link, argument);
  link.store(VCPU.CALL, call);
  link.order();
}

export function callDone(link: VcpuLink): boolean {
  return link.load(VCPU.CALL) === 0;
}

/** The result of a call that is done; throws what went wrong. */
export function callResult(link: VcpuLink): unknown {
  const result = get(link);
  if (link.load(VCPU.CALL_FAILED) !== 0) throw new Error(String(result));
  return result;
}

/** The vCPU's side: answers a call if there is one. The machine's thread is to be rung then. */
export function answerCall(link: VcpuLink, answer: (call: number, argument: unknown) => unknown): boolean {
  const call = link.load(VCPU.CALL);
  if (call === 0) return false;
  let failed = 0;
  try {
    put(link, answer(call, get(link)));
  } catch (error) {
    failed = 1;
    put(link, error instanceof Error ? error.message : String(error));
  }
  link.store(VCPU.CALL_FAILED, failed);
  link.store(VCPU.CALL, 0);
  return true;
}
