// Where processors differ and the guest's processor need not be the host: each entry says what may differ, when, and by which manual.

import type { Plan } from "./plan.ts";
import { FX, RESULT } from "./record.ts";

interface KnownDifference {
  readonly why: string;
  /** Mnemonics; absent for all. */
  readonly names?: readonly string[];
  /** Fields of compare.ts that may differ. */
  readonly fields: RegExp;
  readonly when?: (plan: Plan, request: Uint8Array, host: DataView, engine: DataView) => boolean;
}

const SUMMARY = 0x80;

const KNOWN: readonly KnownDifference[] = [
  {
    why: "AMD saves and restores the x87 error pointers only while an unmasked exception is pending (APM Vol. 2 11.4.4, FXSAVE)",
    fields: /^(fop|fip|fdp)$/,
    when: (_plan, _request, host) => (host.getUint16(RESULT.FX + FX.FSW, true) & SUMMARY) === 0,
  },
];

export function allowed(plan: Plan, request: Uint8Array, host: DataView, engine: DataView, field: string): boolean {
  return KNOWN.some(
    ({ names, fields, when }) =>
      (names === undefined || names.includes(plan.row.instruction.name)) &&
      fields.test(field) &&
      (when === undefined || when(plan, request, host, engine)),
  );
}
