// Where state components lie in an XSAVE area (SDM Vol. 1 13.4).

import { i32, select } from "../../wasm/value.ts";
import { helper } from "../helper.ts";

export const XSTATE = { X87: 1 << 0, SSE: 1 << 1, AVX: 1 << 2 } as const;

/** Components beyond the legacy region: offset in the standard form, which with one component is that of the compacted form too. */
export const AVX_COMPONENT = { offset: 576, size: 256 } as const;
export const LEGACY_SIZE = 512;
export const HEADER_SIZE = 64;

/** Bytes of an area for the components of a mask: legacy region and header always. */
export const xsaveSize = helper("xsaveSize", ["i32"], ["i32"], (x, mask) => {
  x.done(select(mask.and(XSTATE.AVX), i32(AVX_COMPONENT.offset + AVX_COMPONENT.size), LEGACY_SIZE + HEADER_SIZE));
});
