// Shared pieces of semantics: functions of the generated engine module that several instructions call, written with the same builder,
// and the services that the engine underneath provides. A translated region imports them instead of repeating them.

import type { Local } from "../wasm/code.ts";
import type { ValType } from "../wasm/ops.ts";
import type { Env } from "./semantics.ts";

/** A function written in the builder. One that `faults` gives a status besides its results, which `Env.call` checks: not zero leaves the caller too. */
export interface Helper {
  readonly name: string;
  readonly params: readonly ValType[];
  readonly results: readonly ValType[];
  readonly faults: boolean;
  /** Writes the body; every path must end in `x.done(...results)` or in a raise. */
  readonly body: (x: Env, ...params: Local[]) => void;
}

export function helper(
  name: string,
  params: readonly ValType[],
  results: readonly ValType[],
  body: (x: Env, ...params: Local[]) => void,
): Helper {
  return { name, params, results, faults: false, body };
}

/** A helper that may raise an exception or access memory that faults. */
export function faultingHelper(
  name: string,
  params: readonly ValType[],
  results: readonly ValType[],
  body: (x: Env, ...params: Local[]) => void,
): Helper {
  return { name, params, results, faults: true, body };
}

/** A service that the engine or its host gives to semantics; `faults` as for helpers. */
export interface Service {
  readonly name: string;
  readonly params: readonly ValType[];
  readonly results: readonly ValType[];
  readonly faults: boolean;
  /** Provided by JavaScript (an exit that is answered in place) and not by the engine module. */
  readonly host: boolean;
}

function service(name: string, params: readonly ValType[], results: readonly ValType[], faults = false): Service {
  return { name, params, results, faults, host: false };
}

function hostService(name: string, params: readonly ValType[], results: readonly ValType[]): Service {
  return { name, params, results, faults: false, host: true };
}

// Engine services, implemented in src/cpu.

/** Recomputes what depends on CR0, CR4, EFER, CS, SS, CPL and RFLAGS.AC/TF/VM: code mode, TLB tables. Call after any change of these. */
export const updateMode = service("updateMode", [], []);
/** What of the TLB goes: the present address space but for its global pages, everything, or all but global pages. */
export const flushScope = { SPACE: 0, ALL: 1, SPACES: 2 } as const;
/** Drops TLB entries (SDM Vol. 3A 4.10.4): a `flushScope`. */
export const flushTlb = service("flushTlb", ["i32"], []);
/** Drops the TLB entries of one linear page, those of other PCIDs too. */
export const flushPage = service("flushPage", ["i64"], []);
/** Drops those of a PCID (CR3's own, or another) but for global pages. */
export const flushSpace = service("flushSpace", ["i32"], []);
/** CR3 now names an address space: its PCID (0 where there are none), 1 where what the TLB holds of it stays valid. */
export const changeSpace = service("changeSpace", ["i32", "i32"], []);
/** Host offset in guest RAM of one byte at a linear address, with a right to read (0) or write (1) to the end of its 4 KiB page; -1 where
 *  an access must go the ordinary way (fault, MMIO, translated code in the page). Never raises. */
export const hostAddress = service("hostAddress", ["i64", "i32"], ["i32"]);
/** CMPXCHG16B with LOCK, at an address that is a multiple of 16: linear, expected low and high, new low and high; gives what it found. */
export const exchange16 = service("exchange16", ["i64", "i64", "i64", "i64", "i64"], ["i64", "i64"], true);
/** Loads the four PDPTEs that CR3 points to, checking reserved bits: #GP(0). Nothing is loaded outside PAE paging. */
export const loadPdptes = service("loadPdptes", ["i64"], [], true);
/** The guest executed PAUSE: it waits for somebody, who may need this thread. */
export const pause = service("pause", [], []);

// Host services, answered by JavaScript: the exits of the vCPU that complete in place.

/** IN: port, width in bytes. */
export const portIn = hostService("portIn", ["i32", "i32"], ["i32"]);
/** OUT: port, width in bytes, value. */
export const portOut = hostService("portOut", ["i32", "i32", "i32"], []);
/** RDMSR of an MSR that is not plain storage: number; gives known (1 or 0), low, high. */
export const hostReadMsr = hostService("hostReadMsr", ["i32"], ["i32", "i32", "i32"]);
/** WRMSR of such an MSR: number, low, high; gives 1, or 0 for #GP. */
export const hostWriteMsr = hostService("hostWriteMsr", ["i32", "i32", "i32"], ["i32"]);
/** Virtual time in TSC ticks before TSC_OFFSET, as an integer below 2^53. */
export const tscNow = hostService("tscNow", [], ["f64"]);
/** The task priority of the local APIC, as CR8 shows it (0 to 15). */
export const readCr8 = hostService("readCr8", [], ["i32"]);
export const writeCr8 = hostService("writeCr8", ["i32"], []);
/** 32 random bits. */
export const random32 = hostService("random32", [], ["i32"]);
/** Counts and logs a guest anomaly by number (see ANOMALY in src/isa/anomaly.ts) with one argument. */
export const anomaly = hostService("anomaly", ["i32", "i32"], []);

export const SERVICES: readonly Service[] = [
  updateMode,
  flushTlb,
  flushPage,
  flushSpace,
  changeSpace,
  hostAddress,
  exchange16,
  loadPdptes,
  pause,
  portIn,
  portOut,
  hostReadMsr,
  hostWriteMsr,
  tscNow,
  readCr8,
  writeCr8,
  random32,
  anomaly,
];
