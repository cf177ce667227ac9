"""Annotation files for one's own photos: COCO, PASCAL VOC, and CSV lists."""
