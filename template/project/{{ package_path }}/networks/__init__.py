"""Part: networks that are trained on texts and images, with torch."""
