// The interrupt command register: its fields, and which combinations are sent.
// SDM Vol. 3A 11.6.1 and tables 11-3, 11-4; AMD APM Vol. 2 16.5 (remote read).

import { DeliveryMode } from "./interrupt-message.ts";

/** Bits of the low word that software may set; delivery status (12) is read-only and always idle, 13 and 17:16 and 31:20 reserved. */
export const ICR_WRITABLE = 0x000ccfff;
/** Intel processors ignore a set delivery status in x2APIC mode, although 11.12.9 lists the bit as reserved. */
export const ICR_DELIVERY_STATUS = 1 << 12;

export const Shorthand = { NONE: 0, SELF: 1, ALL: 2, ALL_BUT_SELF: 3 } as const;

export interface InterruptCommand {
  readonly vector: number;
  readonly mode: number;
  readonly logical: boolean;
  readonly assert: boolean;
  readonly levelTriggered: boolean;
  readonly shorthand: number;
}

export function decodeIcr(low: number): InterruptCommand {
  return {
    vector: low & 0xff,
    mode: (low >>> 8) & 7,
    logical: (low & (1 << 11)) !== 0,
    assert: (low & (1 << 14)) !== 0,
    levelTriggered: (low & (1 << 15)) !== 0,
    shorthand: (low >>> 18) & 3,
  };
}

/** Trigger conditions: either kind of edge, or level with the level bit set to assert; or whatever the bits are. */
type TriggerRule = "edge-or-assert" | "edge" | "any";

const EVERY_SHORTHAND: readonly number[] = [Shorthand.NONE, Shorthand.SELF, Shorthand.ALL, Shorthand.ALL_BUT_SELF];
const NOT_TO_SELF: readonly number[] = [Shorthand.NONE, Shorthand.ALL_BUT_SELF];

/** The legal tuples per delivery mode; what is in no row is not sent. */
const LEGAL: { readonly [mode: number]: { readonly shorthands: readonly number[]; readonly trigger: TriggerRule } } = {
  [DeliveryMode.FIXED]: { shorthands: EVERY_SHORTHAND, trigger: "edge-or-assert" },
  [DeliveryMode.LOWEST_PRIORITY]: { shorthands: NOT_TO_SELF, trigger: "edge-or-assert" },
  [DeliveryMode.SMI]: { shorthands: NOT_TO_SELF, trigger: "edge-or-assert" },
  [DeliveryMode.REMOTE_READ]: { shorthands: [Shorthand.NONE], trigger: "edge" },
  [DeliveryMode.NMI]: { shorthands: NOT_TO_SELF, trigger: "edge-or-assert" },
  [DeliveryMode.INIT]: { shorthands: NOT_TO_SELF, trigger: "edge-or-assert" },
  [DeliveryMode.STARTUP]: { shorthands: NOT_TO_SELF, trigger: "any" },
};

/**
 * What becomes of a command: `send`; `deassert` for INIT level de-assert, which only synchronised arbitration ids of old
 * processors and has no effect on those with an xAPIC (11.6.1); `invalid` for a tuple that is not sent.
 */
export function dispositionOf(command: InterruptCommand): "send" | "deassert" | "invalid" {
  const { mode, shorthand, levelTriggered, assert } = command;
  if (mode === DeliveryMode.INIT && levelTriggered && !assert) return "deassert";
  const rule = LEGAL[mode];
  if (rule === undefined || !rule.shorthands.includes(shorthand)) return "invalid";
  if (rule.trigger === "any" || !levelTriggered) return "send";
  return rule.trigger === "edge-or-assert" && assert ? "send" : "invalid";
}
