/**
 * What servers and clients use of `node:http`. To `import` that module is to look at all that it
 * exports, and one of those, `WebSocket`, loads Node's own copy of undici: more than 2 MiB in every
 * process, for something that nobody here uses.
 */
export const { createServer, request, STATUS_CODES, validateHeaderValue } =
  process.getBuiltinModule('node:http');
