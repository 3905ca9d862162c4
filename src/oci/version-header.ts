/** The header in which /v2/ says that Salvor answers, and which version of it. */
export const VERSION_HEADER = 'salvor-version';
