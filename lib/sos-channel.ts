/** Pub/sub on the SOS Redis: JSON of an alert's id and its raiser's new position, for whoever follows a link. */
export const movedChannel = 'sos:moved';
