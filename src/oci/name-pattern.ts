/**
 * Turns a pattern of names, such as "docker.io/library/*" or "*.example.com", into a test: "*"
 * stands for anything, upper and lower case are the same.
 */
export function namePattern(text: string): RegExp {
  const parts = text.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`, 'i');
}
